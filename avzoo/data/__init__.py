"""The datasets of the zoo, one file each."""

from avzoo.data.ave import AVE
from avzoo.data.base import AVDataModule, Item
from avzoo.data.synthetic import Synthetic

__all__ = ["AVE", "AVDataModule", "Item", "Synthetic"]
