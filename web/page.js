// What Gradio cannot be told in Python about the pictures and clips of the page.
() => {
  const boxOf = (picture) => picture.closest?.(".picture");

  // Pictures that are enlarged to twice their size or more are shown with sharp pixels, not blurred.
  const show = ({ target: picture }) => {
    boxOf(picture)?.classList.remove("unshown");
    const width = picture.naturalWidth || picture.videoWidth;
    const height = picture.naturalHeight || picture.videoHeight;
    if (!width || !height) return;
    const zoom = Math.min(picture.clientWidth / width, picture.clientHeight / height);
    picture.style.imageRendering = zoom < 2 ? "auto" : "pixelated";
  };

  // Many files that can be animated are none that a browser shows. Gradio calls that an error.
  const hideError = (event) => {
    const box = boxOf(event.target);
    if (!box) return;
    event.stopImmediatePropagation();
    box.classList.add("unshown");
  };

  document.addEventListener("load", show, true);
  document.addEventListener("loadeddata", show, true);
  document.addEventListener("error", hideError, true);
}
