// Zooms and moves the image on the stage, with wheel, mouse, fingers and keys; recognises swipes.

const MOST = 8;
const DOUBLE_CLICK = 3;
const STEP = 1.4; // of the keys
const WHEEL = 0.0018; // per pixel scrolled
const SWIPE_PX = 60;
const DRAG_PX = 4; // shorter movements are clicks

export class Zoom {
  // swiped(direction): at normal size; zoomed(): called when the image is first enlarged
  constructor(stage, image, { swiped, zoomed }) {
    Object.assign(this, { stage, image, swiped, zoomed });
    this.pointers = new Map(); // pressed ones: id -> last position
    this.reset();
    stage.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.by(Math.exp(-WHEEL * event.deltaY * (event.deltaMode ? 33 : 1)), event);
    }, { passive: false });
    stage.addEventListener("dblclick", (event) => {
      if (event.target.closest("button")) return;
      if (this.isZoomed) this.reset();
      else this.by(DOUBLE_CLICK, event);
    });
    stage.addEventListener("pointerdown", (event) => this.#press(event));
    stage.addEventListener("pointermove", (event) => this.#drag(event));
    for (const name of ["pointerup", "pointercancel"]) stage.addEventListener(name, (event) => this.#release(event));
    stage.addEventListener("click", (event) => this.moved && event.stopPropagation(), { capture: true }); // the end of a drag
    image.addEventListener("dragstart", (event) => event.preventDefault());
  }

  get isZoomed() {
    return this.scale > 1;
  }

  reset() {
    this.#set(1, 0, 0);
  }

  in() {
    this.by(STEP);
  }

  out() {
    this.by(1 / STEP);
  }

  // Enlarges by a factor around a point of the window, else around the middle.
  by(factor, { clientX, clientY } = this.#middle()) {
    const scale = Math.min(MOST, Math.max(1, this.scale * factor));
    const { clientX: midX, clientY: midY } = this.#middle();
    const kept = (point, shift) => point - (point - shift) * (scale / this.scale);
    if (!this.isZoomed && scale > 1) this.zoomed();
    this.#set(scale, kept(clientX - midX, this.x), kept(clientY - midY, this.y));
  }

  #middle() {
    const { left, top, width, height } = this.stage.getBoundingClientRect();
    return { clientX: left + width / 2, clientY: top + height / 2 };
  }

  #set(scale, x, y) {
    // The image covers the stage, or is in its middle.
    const limit = (length, available) => Math.max(0, (length * scale - available) / 2);
    const within = (value, most) => Math.min(most, Math.max(-most, value));
    this.scale = scale;
    this.x = within(x, limit(this.image.offsetWidth, this.stage.clientWidth));
    this.y = within(y, limit(this.image.offsetHeight, this.stage.clientHeight));
    this.image.style.transform = scale === 1 ? "" : `translate(${this.x}px, ${this.y}px) scale(${scale})`;
    this.stage.classList.toggle("zoomed", scale > 1);
  }

  #press(event) {
    if (event.target.closest("button")) return;
    if (!this.pointers.size) this.moved = false;
    this.pointers.set(event.pointerId, event);
    this.from = event;
  }

  #drag(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    if (this.pointers.size === 2) this.#pinch(event);
    else if (this.isZoomed) {
      this.#set(this.scale, this.x + event.clientX - before.clientX, this.y + event.clientY - before.clientY);
    }
    this.pointers.set(event.pointerId, event);
    const far = Math.hypot(event.clientX - this.from.clientX, event.clientY - this.from.clientY) > DRAG_PX;
    if (far && !this.moved && (this.isZoomed || this.pointers.size === 2)) this.stage.setPointerCapture(event.pointerId);
    this.moved ||= far;
  }

  #pinch(event) {
    const [other] = [...this.pointers].filter(([id]) => id !== event.pointerId).map(([, position]) => position);
    const distance = ({ clientX, clientY }) => Math.hypot(clientX - other.clientX, clientY - other.clientY) || 1;
    const middle = { clientX: (event.clientX + other.clientX) / 2, clientY: (event.clientY + other.clientY) / 2 };
    this.by(distance(event) / distance(this.pointers.get(event.pointerId)), middle);
  }

  #release(event) {
    const alone = this.pointers.size === 1;
    if (!this.pointers.delete(event.pointerId) || event.type === "pointercancel") return;
    const [right, down] = [event.clientX - this.from.clientX, event.clientY - this.from.clientY];
    const swipes = alone && event.pointerType === "touch" && !this.isZoomed && Math.abs(right) > Math.max(SWIPE_PX, Math.abs(down));
    if (swipes) this.swiped(right < 0 ? 1 : -1);
  }
}
