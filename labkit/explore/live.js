const PIXELS = 50; // of a touchpad's fine steps that make a notch; a wheel's own notch is longer

function render({ model, el }) {
  const image = document.createElement("img");
  image.className = "widget-image"; // ipywidgets' rule: never wider than its place
  el.append(image);

  const show = () => {
    const before = image.src;
    image.src = URL.createObjectURL(new Blob([model.get("value")], { type: "image/png" }));
    if (before) URL.revokeObjectURL(before);
  };
  const say = () => {
    image.alt = model.get("alt");
    image.style.cursor = model.get("clickable") ? "crosshair" : "";
  };
  model.on("change:value", show);
  model.on("change:alt change:clickable", say);
  show();
  say();

  // A page that scrolls brings the picture below a pointer that rests: only one that was moved here means it.
  let meant = false, turned = 0;
  image.addEventListener("pointermove", event => { meant ||= event.movementX || event.movementY; });
  image.addEventListener("pointerleave", () => { meant = false; });
  image.addEventListener("wheel", event => {
    if (!meant || event.ctrlKey || !event.deltaY) return;
    const way = Math.sign(event.deltaY), index = model.get("index") + way;
    if (index < 0 || index > model.get("last")) return;
    event.preventDefault();
    if (turned * way < 0) turned = 0;
    turned += event.deltaMode ? way * PIXELS : Math.max(-PIXELS, Math.min(PIXELS, event.deltaY));
    if (Math.abs(turned) < PIXELS) return;
    turned = 0;
    model.set("index", index);
    model.save_changes();
  }, { passive: false });

  image.addEventListener("click", event => {
    if (!model.get("clickable")) return;
    const box = image.getBoundingClientRect();
    model.send({ click: [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height] });
  });

  image.addEventListener("load", () => nameSliders(el));
  const later = setTimeout(nameSliders, 1000, el); // those that are drawn after the picture
  return () => {
    clearTimeout(later);
    URL.revokeObjectURL(image.src);
  };
}

// A slider's handle has no name of its own: the words before it are told to nobody who does not see them.
function nameSliders(el) {
  for (const slider of el.closest(".jp-OutputArea-output")?.querySelectorAll(".widget-slider") ?? []) {
    const name = slider.querySelector(".widget-label")?.textContent;
    const handles = slider.querySelectorAll(".noUi-handle");
    handles.forEach((handle, i) => {
      handle.setAttribute("aria-label", handles.length > 1 ? `${name}, ${["from", "to"][i]}` : name);
    });
  }
}

export default { render };
