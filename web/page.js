// Pictures that are enlarged to twice their size or more are shown with sharp pixels, not blurred.
() => {
  const sharpen = ({ target: picture }) => {
    const width = picture.naturalWidth || picture.videoWidth;
    const height = picture.naturalHeight || picture.videoHeight;
    if (!width || !height) return;
    const zoom = Math.min(picture.clientWidth / width, picture.clientHeight / height);
    picture.style.imageRendering = zoom < 2 ? "auto" : "pixelated";
  };
  document.addEventListener("load", sharpen, true);
  document.addEventListener("loadeddata", sharpen, true);
}
