() => {
  // The line over the timeline follows the video; a click on the timeline moves the video.
  const player = () => document.querySelector("#clip video");
  const card = () => document.querySelector("#timeline .avzoo");
  const follow = () => {
    requestAnimationFrame(follow);
    const video = player(), shown = card();
    if (video && shown) shown.style.setProperty("--at", Math.min(1, video.currentTime / shown.dataset.seconds));
    document.querySelector("#unseen .avzoo").hidden = !(video?.error || (video?.readyState && !video.videoWidth));
  };
  follow();
  document.querySelector("#answer .html-container").ariaLive = "polite";
  document.addEventListener("click", (event) => {
    const lane = event.target.closest("#timeline .lane"), video = player();
    if (!lane || !video) return;
    const box = lane.getBoundingClientRect();
    video.currentTime = card().dataset.seconds * (event.clientX - box.left) / box.width;
  });

  document.addEventListener("keydown", (event) => {
    const { key, target } = event, step = { ArrowLeft: -1, ArrowRight: 1 }[key], video = player();
    if (!video || !target.closest("#clip")) return;
    if (!["Enter", " "].includes(key)) event.stopPropagation(); // Gradio would play and pause at any key, Tab too
    if (step && !target.matches("input")) video.currentTime += step;
  }, true);
  // What this browser cannot play can be asked about; Gradio would put an "Error" over it and what is dropped next.
  document.addEventListener("error", (event) => {
    if (event.target === player()) event.stopImmediatePropagation();
  }, true);

  // Gradio goes by the type that the browser gives a file, and IMG_0042.MOV may have none; the server looks into it.
  // It goes by content too: a clip in two tabs would be one upload, gone with the first answer, but for the tab's name.
  const tab = crypto.randomUUID().slice(0, 8);
  const asVideos = (files) => {
    const known = new DataTransfer();
    for (const file of files) known.items.add(new File([file], `${tab}-${file.name}`, { type: "video/mp4" }));
    return known.files;
  };
  document.addEventListener("change", ({ target }) => {
    if (target.matches("#clip input[type=file]")) target.files = asVideos(target.files);
  }, true);
  document.addEventListener("drop", ({ target, dataTransfer }) => {
    if (target.closest("#clip")) Object.defineProperty(dataTransfer, "files", { value: asVideos(dataTransfer.files) });
  }, true);

  // The server removes its copy of a clip with the answer: the browser keeps one, to show, and to send again.
  let kept = {};
  let chosen, asked; // clip and model: now, and when the button was pressed; Gradio calls what is cancelled failed
  window.avzoo = {
    choose: (clip, model) => {
      chosen = [clip ? clip.path : "", model];
      return [chosen[0], "", ""];
    },
    failed: (sentence) => ["", asked === chosen ? sentence : ""],
    send: async (path, model) => {
      if (!path) return [path, model];
      const now = asked = chosen;
      let there = path, { clip } = kept;
      if (kept.path === path) {
        const form = new FormData();
        form.append("files", clip, path.split(/[\\/]/).pop());
        [there] = await (await fetch("gradio_api/upload", { method: "POST", body: form })).json();
      } else {
        const answer = await fetch(`gradio_api/file=${path.split("/").map(encodeURIComponent).join("/")}`);
        clip = answer.ok && (await answer.blob());
      }
      if (chosen !== now) return avzoo.send(...chosen);
      if (!clip) return [path, model];
      kept = { path, clip };
      const video = player(), time = video?.currentTime;
      if (video && !video.src.startsWith("blob:")) {
        video.src = URL.createObjectURL(clip);
        video.currentTime = time;
      }
      return [there, model];
    },
  };
}
