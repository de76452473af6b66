#!/usr/bin/env bash
# SECRNNFusion's five stages on ten scenes that avzoo renders: the figures in docs/scenes.md. Some minutes of two cores.
set -euo pipefail
recipes="$(cd "$(dirname "$0")/../../recipes" && pwd)"
python -c "
from pathlib import Path
from avzoo.data import rendering
rendering.write_tau(Path('tau'), train=200, test=80, size=64, sample_rate=22050)"
sound="--preprocess.sample_rate 22050 --preprocess.window 882 --preprocess.hop 441 --preprocess.f_max 11025"
common="--data.root tau --data.batch_size 16 $sound --preprocess.log_offset 1e-5"
common="$common --preprocess.visual_backbone tf_efficientnet_lite0 --preprocess.size 24"
stage() {
  avzoo fit --config "$recipes/$1.yaml" $common "${@:2}"
  avzoo test --ckpt_path "runs/$1/version_0/checkpoints/best.ckpt"
}
stage secrnn-tau-audio --trainer.max_epochs 40 --trainer.check_val_every_n_epoch 10
stage secrnn-tau-visual --model.image_features 1280 --trainer.max_epochs 60 --model.lr 3e-4
stage secrnn-tau-visual-ft --model.train_blocks 2 --trainer.max_epochs 1
stage secrnn-tau-fusion --model.lr 2e-3 --model.early_weight 1 --trainer.max_epochs 16 --trainer.check_val_every_n_epoch 8
stage secrnn-tau --model.train_blocks 2 --trainer.max_epochs 1
