// What hovers beside the pointer, or beside the element with the focus.

const TIP = el("div", { id: "tip", role: "tooltip", hidden: true });

/** Shows text beside a place on the screen; the text is read out by the element's own label. */
function tipAt(x, y, text) {
  TIP.textContent = text;
  TIP.hidden = false;
  const { width, height } = TIP.getBoundingClientRect();
  TIP.style.left = `${Math.max(4, x + 14 + width > innerWidth ? x - width - 14 : x + 14)}px`;
  TIP.style.top = `${Math.max(4, Math.min(y + 14, innerHeight - height - 4))}px`;
}

/** Shows text beside an element. */
function tipBeside(node, text) {
  const box = node.getBoundingClientRect();
  tipAt(box.right - 8, box.top, text);
}

const tipAway = () => {
  TIP.hidden = true;
};
