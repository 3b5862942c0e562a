// Enlarges pictures and stops animations. Without this script, a link shows its
// picture, and animations stand still for readers who prefer reduced motion.
"use strict";

const dialog = document.getElementById("enlarged");
const enlarged = dialog.querySelector("img");

for (const link of document.querySelectorAll("a.enlarge")) {
  link.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) {
      return; // which open another tab or window
    }
    event.preventDefault();
    const picture = link.querySelector("img");
    enlarged.src = picture.currentSrc;
    enlarged.alt = picture.alt;
    dialog.showModal();
  });
}
dialog.addEventListener("click", (event) => {
  if (event.target === dialog) { // beside its content
    dialog.close();
  }
});

for (const still of document.querySelectorAll("source.still")) {
  let stands = matchMedia(still.media).matches;
  const button = document.createElement("button");
  button.type = "button";
  const settle = () => {
    still.media = stands ? "all" : "not all";
    button.textContent = stands ? "Play" : "Pause";
  };
  button.addEventListener("click", () => {
    stands = !stands;
    settle();
  });
  settle();
  still.closest("figure").querySelector("figcaption").append(button);
}
