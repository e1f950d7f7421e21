// The picture of the detail, or the video that it is a frame of, which plays from there. A picture the user can enlarge by buttons, keys, wheel, clicks and two fingers, and move. It shows
// a preview, and loads the original only when the user enlarges it, because that may have many megabytes.

import { fileUrl, thumbnailUrl, videoUrl } from "../api/client.js";
import { translate } from "../i18n/i18n.js";
import { make, makeButton } from "./dom.js";
import { formatMoment, getName } from "./tile.js";

const PREVIEW = 1024; // px of the longer side
const RENDERED = 2048; // px of the longer side, in the place of an original that browsers do not show
const SHOWN = ["jpeg", "png", "webp", "gif", "avif", "bmp"];
const MAX_ZOOM = 12;
const STEP = 1.6;
const CLICK_ZOOM = 2.5;
const WHEEL_SPEED = 0.002; // per px
const MIN_DRAG = 5; // px; a shorter one is a click
const MIN_SWIPE = 50; // px
const SVG = "http://www.w3.org/2000/svg";

export class Stage {
  #image = null;
  #picture = make("img", { draggable: false });
  #lines = makeOverlay();
  #heat = null; // the address of the heat map that is shown in place of the picture
  #video = null; // of a frame
  #buttons = {};
  #zoom = 1;
  #offset = { x: 0, y: 0 }; // px from the middle
  #pointers = new Map(); // id -> {x, y} from the middle of the stage
  #dragged = 0; // px since the first pointer went down
  #wasFit = true; // before the first of two clicks
  #swiped = 0; // px to the right, by one finger

  /** `onStep(by)`: a swipe asks for the previous (-1) or next (1) picture. The buttons name their actions in `data-action`. */
  constructor({ onStep }) {
    this.onStep = onStep;
    const symbols = { previous: "‹", next: "›", zoom_out: "−", zoom_in: "+", full_screen: "" };
    for (const [action, symbol] of Object.entries(symbols)) {
      this.#buttons[action] = makeButton("icon-button", symbol);
      this.#buttons[action].dataset.action = action;
    }
    const { previous, next, zoom_out, zoom_in, full_screen } = this.#buttons;
    full_screen.hidden = !document.fullscreenEnabled;
    const tools = make("div", { className: "stage-tools" }, zoom_out, zoom_in, full_screen);
    this.element = make("div", { className: "stage" }, this.#picture, this.#lines, previous, next, tools);
    this.#watch();
  }

  /** `neighbours`: {previous, next}, whether there are such pictures. */
  show(image, neighbours) {
    for (const [action, button] of Object.entries(this.#buttons)) {
      Object.assign(button, { ariaLabel: translate(action), title: translate(action) });
    }
    this.#buttons.previous.disabled = !neighbours.previous;
    this.#buttons.next.disabled = !neighbours.next;
    this.#picture.alt = getName(image);
    if (this.#image?.id === image.id && this.#image.sha256 === image.sha256) return;
    this.#image = image;
    const isBroken = image.status === "failed";
    this.element.classList.toggle("broken", isBroken);
    this.element.classList.toggle("see-through", image.format !== "jpeg");
    this.#picture.removeAttribute("src"); // never the picture before
    for (const side of ["width", "height"]) {
      this.#picture[side] = image[side] ?? 1;
      this.element.style.setProperty(`--${side}`, image[side] ?? PREVIEW); // the style limits how much it enlarges
    }
    this.fit();
    this.#heat = null;
    this.element.classList.remove("explained");
    if (!isBroken) this.#picture.src = this.#preview(image);
    this.#showVideo(image);
  }

  /** Show nothing, and play nothing. */
  clear() {
    this.#image = null;
    this.#removeVideo();
  }

  /** Without its file, or a browser that can play it, the frame stays in sight. */
  #showVideo({ id, video_id, t_ms }) {
    const src = video_id ? videoUrl(video_id) : null;
    const seek = () => this.#image && (this.#video.currentTime = this.#image.t_ms / 1000);
    if (src && this.#video?.getAttribute("src") === src) return this.#video.readyState ? seek() : undefined;
    this.#removeVideo();
    if (!src) return;
    const label = translate("video_at", { time: formatMoment(t_ms) });
    this.#video = make("video", { controls: true, preload: "metadata", playsInline: true, poster: thumbnailUrl(id, PREVIEW), src, ariaLabel: label });
    this.#video.addEventListener("loadedmetadata", seek);
    this.#video.addEventListener("error", () => this.#removeVideo());
    this.#picture.after(this.#video);
    this.element.classList.add("playing");
  }

  #removeVideo() {
    this.#video?.removeAttribute("src"); // ends the download
    this.#video?.remove();
    this.#video = null;
    this.element.classList.remove("playing");
  }

  /** Show a heat map in place of the picture; null ends that. */
  showHeat(url) {
    if (url === this.#heat || !this.#image) return;
    this.#heat = url;
    this.element.classList.toggle("explained", Boolean(url));
    this.#picture.src = url ?? this.#preview(this.#image);
    if (!url && !this.isFit) this.#loadOriginal();
  }

  #preview({ id, animated }) {
    return animated ? fileUrl(id) : thumbnailUrl(id, PREVIEW);
  }

  /** Draw boxes around lines of text, {text, box}; a box is four corners as shares of width and height. Those with one of `words` stand out. */
  showLines(lines, words = []) {
    const isFound = ({ text }) => words.some((word) => text.toLowerCase().includes(word.toLowerCase()));
    const shapes = lines.map((line) => {
      const shape = document.createElementNS(SVG, "polygon");
      shape.setAttribute("points", line.box.join(" "));
      shape.classList.toggle("found", isFound(line));
      return shape;
    });
    this.#lines.replaceChildren(...shapes);
  }

  /** Whether the whole picture is in sight. */
  get isFit() {
    return this.#zoom === 1;
  }

  fit() {
    this.zoomBy(0);
  }

  zoomIn() {
    this.zoomBy(STEP);
  }

  zoomOut() {
    this.zoomBy(1 / STEP);
  }

  /** Keep what is at `point` (px from the middle) where it is. */
  zoomBy(factor, point = { x: 0, y: 0 }) {
    if (this.#video && factor) return;
    const zoom = Math.min(Math.max(this.#zoom * factor, 1), MAX_ZOOM);
    const ratio = zoom / this.#zoom;
    this.#zoom = zoom;
    this.#moveTo(point.x - (point.x - this.#offset.x) * ratio, point.y - (point.y - this.#offset.y) * ratio);
    if (zoom > 1) this.#loadOriginal();
  }

  toggleFullScreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else if (document.fullscreenEnabled) this.element.requestFullscreen().catch(() => {});
  }

  #moveTo(x, y) {
    const { clientWidth, clientHeight } = this.#picture;
    const { width, height } = this.#image ?? {};
    const scale = Math.min(clientWidth / (width || 1), clientHeight / (height || 1)) * this.#zoom;
    const mostX = Math.max(0, (scale * (width || 1) - this.element.clientWidth) / 2);
    const mostY = Math.max(0, (scale * (height || 1) - this.element.clientHeight) / 2);
    this.#offset = { x: Math.min(Math.max(x, -mostX), mostX), y: Math.min(Math.max(y, -mostY), mostY) };
    this.#lines.style.transform = this.#picture.style.transform = `translate(${this.#offset.x}px, ${this.#offset.y}px) scale(${this.#zoom})`;
    this.element.classList.toggle("zoomed", !this.isFit);
    this.#buttons.zoom_out.disabled = this.isFit;
    this.#buttons.zoom_in.disabled = this.#zoom === MAX_ZOOM || this.#image?.status === "failed";
  }

  async #loadOriginal() {
    const image = this.#image;
    const url = SHOWN.includes(image.format) ? fileUrl(image.id) : thumbnailUrl(image.id, RENDERED);
    if (this.#heat || this.#picture.getAttribute("src") === url) return;
    const original = make("img", { src: url });
    await original.decode().catch(() => {}); // the preview stays until the original is there
    if (original.naturalWidth && this.#image === image && !this.isFit && !this.#heat) this.#picture.src = url;
  }

  #watch() {
    const picture = this.#picture;
    picture.addEventListener("error", () => picture.hasAttribute("src") && this.element.classList.add("broken"));
    this.element.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoomBy(Math.exp(-event.deltaY * WHEEL_SPEED), this.#place(event));
    }, { passive: false });
    picture.addEventListener("click", (event) => {
      if (this.#dragged > MIN_DRAG || event.pointerType === "touch") return;
      if (event.detail === 1) this.#wasFit = this.isFit;
      if (this.isFit) this.zoomBy(CLICK_ZOOM, this.#place(event));
    });
    picture.addEventListener("dblclick", (event) => {
      if (event.pointerType === "touch") this.zoomBy(this.isFit ? CLICK_ZOOM : 0, this.#place(event));
      else if (!this.#wasFit) this.fit();
    });
    picture.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      picture.setPointerCapture(event.pointerId);
      if (!this.#pointers.size) this.#dragged = 0;
      this.#pointers.set(event.pointerId, this.#place(event));
    });
    picture.addEventListener("pointermove", (event) => this.#handleMove(event));
    for (const type of ["pointerup", "pointercancel"]) picture.addEventListener(type, (event) => this.#handleUp(event));
    new ResizeObserver(() => this.#moveTo(this.#offset.x, this.#offset.y)).observe(this.element);
  }

  /** One pointer moves the picture, two also zoom. */
  #handleMove(event) {
    const before = this.#pointers.get(event.pointerId);
    if (!before) return;
    const now = this.#place(event);
    const other = [...this.#pointers].find(([id]) => id !== event.pointerId)?.[1];
    this.#pointers.set(event.pointerId, now);
    this.#dragged += Math.hypot(now.x - before.x, now.y - before.y);
    if (other) {
      const distance = (one) => Math.max(Math.hypot(one.x - other.x, one.y - other.y), 1);
      this.zoomBy(distance(now) / distance(before), { x: (now.x + other.x) / 2, y: (now.y + other.y) / 2 });
    } else if (!this.isFit) this.#moveTo(this.#offset.x + now.x - before.x, this.#offset.y + now.y - before.y);
    else if (event.pointerType === "touch") this.#swiped += now.x - before.x;
  }

  #handleUp({ pointerId }) {
    this.#pointers.delete(pointerId);
    if (this.#pointers.size) return;
    const by = this.#swiped;
    this.#swiped = 0;
    if (this.isFit && Math.abs(by) > MIN_SWIPE) this.onStep(by < 0 ? 1 : -1);
  }

  #place({ clientX, clientY }) {
    const { left, top, width, height } = this.element.getBoundingClientRect();
    return { x: clientX - left - width / 2, y: clientY - top - height / 2 };
  }
}

function makeOverlay() {
  const overlay = document.createElementNS(SVG, "svg");
  const properties = { class: "lines", viewBox: "0 0 1 1", preserveAspectRatio: "none", "aria-hidden": "true" };
  for (const [name, value] of Object.entries(properties)) overlay.setAttribute(name, value);
  return overlay;
}
