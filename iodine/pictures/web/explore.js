// Redraws scenes as their slots are changed, removed and swapped.
//
// iodine/pictures/explorer.py writes EXPLORED, before this, and the elements of
// explore.html; `tf` is TensorFlow.js. Slots, latents and scenes are counted
// from 0.
"use strict";

(async () => {
  const {
    image_shape: [height, width, channels], scenes: inferred, colors, latents,
    centre, unit, extent, num_shown: numShown,
  } = EXPLORED;
  const numSlots = colors.length;
  const SLOW_MS = 250; // a decoder that takes longer waits for a drag's end
  const STEP = 0.05; // of a slider

  const element = (id) => document.getElementById(`explore-${id}`);
  const make = (tag, properties, ...children) => {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  };
  const options = (select, count) => {
    for (let i = 0; i < count; i++) {
      select.append(make("option", {value: i, textContent: i + 1}));
    }
  };

  // --- The decoder -----------------------------------------------------------

  const bytes = (base64) =>
    Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));

  // The backend has no Einsum. This is the one that decoders use: vectors
  // [N, Z] times matrices [T, Z, C] to [N, T, C].
  tf.registerOp("Einsum", ({inputs: [vectors, matrices]}) =>
    tf.transpose(tf.matMul(tf.expandDims(vectors, 0), matrices), [1, 0, 2]));

  const loadDecoder = async () => {
    // Of its three files there is one, which is not for several threads.
    tf.env().set("WASM_HAS_MULTITHREAD_SUPPORT", false);
    const file = `data:application/wasm;base64,${EXPLORED.wasm}`;
    tf.wasm.setWasmPaths({
      "tfjs-backend-wasm.wasm": file,
      "tfjs-backend-wasm-simd.wasm": file,
      "tfjs-backend-wasm-threaded-simd.wasm": file,
    });
    if (!(await tf.setBackend("wasm"))) {
      throw new Error("it has no WebAssembly with SIMD");
    }
    return tf.loadGraphModel(tf.io.fromMemory({
      modelTopology: EXPLORED.topology,
      weightSpecs: EXPLORED.weight_specs,
      weightData: bytes(EXPLORED.weights).buffer,
    }));
  };

  let decoder;
  let fastest = Infinity; // milliseconds
  const decode = (scene) => {
    const start = performance.now();
    const [components, masks, recons] = tf.tidy(() => {
      const inputs = {
        z: tf.tensor([scene.latents]),
        presence: tf.tensor(scene.present.map(Number), [1, numSlots, 1, 1, 1]),
      };
      return decoder.execute(inputs, EXPLORED.outputs)
        .map((tensor) => tensor.dataSync());
    });
    fastest = Math.min(fastest, performance.now() - start);
    return {components, masks, recons};
  };

  // --- The scenes ------------------------------------------------------------

  const asInferred = (b) => ({
    latents: inferred[b].latents.map((z) => [...z]),
    present: colors.map(() => true),
    decoded: null, // not yet, or the scene has changed
    whole: null,
  });
  const scenes = inferred.map((_, b) => asInferred(b));
  let current = 0;
  let slot = inferred[0].object;

  const decodedScene = (scene) => {
    scene.decoded ??= decode(scene);
    return scene.decoded;
  };
  // The scene with all its slots.
  const decodedWhole = (scene) => {
    if (scene.present.every(Boolean)) {
      return decodedScene(scene);
    }
    scene.whole ??= decode({...scene, present: colors.map(() => true)});
    return scene.whole;
  };
  const touch = (scene) => {
    scene.decoded = scene.whole = null;
  };

  const changes = () => scenes[current].latents.flatMap((z, k) => {
    const names = latents
      .filter(({index: i}) => z[i] !== inferred[current].latents[k][i])
      .map(({index}) => index);
    const all = names.length === latents.length;
    return names.length
      ? [`slot ${k + 1}: ${all ? "another slot" : `latent ${names.join(", ")}`}`]
      : [];
  }).concat(scenes[current].present.flatMap(
    (there, k) => there ? [] : [`slot ${k + 1} is removed`]));

  // --- Pictures --------------------------------------------------------------

  // Paints color(pixel), which is [red, green, blue, alpha] in [0, 1].
  const paint = (canvas, color) => {
    const context = canvas.getContext("2d");
    const image = context.createImageData(width, height);
    for (let pixel = 0; pixel < width * height; pixel++) {
      // The array rounds and limits what is assigned.
      color(pixel).forEach((value, i) => {
        image.data[4 * pixel + i] = 255 * value;
      });
    }
    context.putImageData(image, 0, 0);
  };
  const rgb = (picture, pixel) => [0, 1, 2].map(
    (i) => picture[pixel * channels + Math.min(i, channels - 1)]);
  const paintScene = (canvas, scene) => {
    const {recons} = decodedScene(scene);
    paint(canvas, (pixel) => [...rgb(recons, pixel), 1]);
  };

  const rgbColors = colors.map((color) =>
    [1, 3, 5].map((i) => parseInt(color.slice(i, i + 2), 16) / 255));
  const size = width * height;

  const draw = () => {
    const scene = scenes[current];
    const {masks} = decodedScene(scene);
    paintScene(element("scene-picture"), scene);
    paint(element("masks"), (pixel) => {
      // The owner's colour, the paler the less surely: pictures/masks.py.
      const shares = rgbColors.map((_, k) => masks[k * size + pixel]);
      const opacity = Math.max(...shares);
      const owner = rgbColors[shares.indexOf(opacity)];
      return [...owner.map((value) => 1 - opacity * (1 - value)), 1];
    });
    slotButtons.forEach(({button, canvas, text}, k) => {
      // A removed slot has no mask. It can be told by the one that it would have.
      const from = scene.present[k] ? decodedScene(scene) : decodedWhole(scene);
      paint(canvas, (pixel) => [
        ...rgb(from.components, k * size + pixel),
        from.masks[k * size + pixel]]);
      button.classList.toggle("removed", !scene.present[k]);
      // At least one slot must remain.
      const isLast = scene.present[k] && scene.present.filter(Boolean).length < 2;
      button.setAttribute("aria-disabled", isLast);
      text.textContent = scene.present[k]
        ? `Remove slot ${k + 1}` : `Restore slot ${k + 1}`;
    });
    const other = Number(element("other-scene").value);
    if (scenes.length > 1) {
      paintScene(element("other-picture"), scenes[other]);
    }
    const changed = changes();
    const status = changed.length
      ? `Scene ${current + 1} is changed: ${changed.join("; ")}.`
      : `Scene ${current + 1} is as inferred.`;
    if (element("status").textContent !== status) {
      element("status").textContent = status;
    }
  };

  let isDue = false;
  const drawSoon = () => {
    if (!isDue) {
      isDue = true;
      requestAnimationFrame(() => {
        isDue = false;
        draw();
      });
    }
  };

  // --- Controls --------------------------------------------------------------

  const slotButtons = colors.map((color, k) => {
    const canvas = make("canvas", {width, height});
    canvas.setAttribute("aria-hidden", "true");
    canvas.style.setProperty("--slot", color);
    const text = make("span", {});
    const button = make("button", {type: "button"}, canvas, text);
    button.addEventListener("click", () => {
      const scene = scenes[current];
      if (button.getAttribute("aria-disabled") !== "true") {
        scene.present[k] = !scene.present[k];
        touch(scene);
        drawSoon();
      }
    });
    element("slots").append(button);
    return {button, canvas, text};
  });

  const slotChoices = colors.map((_, k) => {
    const choice = make(
      "input", {type: "radio", name: "explore-slot", value: k});
    choice.addEventListener("change", () => {
      slot = k;
      element("own-slot").value = k;
      settle();
    });
    element("slot-choice").append(
      make("label", {}, choice, ` slot ${k + 1}`));
    return choice;
  });

  const sliders = []; // as many as were shown, in the order of `latents`
  const makeSlider = ({index, name}) => {
    const slider = make("input", {type: "range", step: STEP});
    const output = make("output", {});
    const change = (event) => {
      const scene = scenes[current];
      scene.latents[slot][index] =
        centre[index] + slider.valueAsNumber * unit[index];
      touch(scene);
      show(slider.valueAsNumber);
      if (event.type === "change" || fastest < SLOW_MS) {
        drawSoon();
      }
    };
    const show = (offset) => {
      output.textContent = (offset < 0 ? "\u2212" : "+")
        + Math.abs(offset).toFixed(2);
      slider.setAttribute("aria-valuetext", output.textContent);
    };
    slider.addEventListener("input", change);
    slider.addEventListener("change", change);
    element("latents").append(
      make("label", {}, make("span", {textContent: name}), slider, output));
    return () => {
      const offset = (z) => (z[index] - centre[index]) / unit[index];
      const own = offset(scenes[current].latents[slot]);
      const start = offset(inferred[current].latents[slot]);
      const end = Math.max(extent, Math.abs(own), Math.abs(start));
      Object.assign(slider, {min: -end, max: end, value: own});
      show(own);
    };
  };

  // Sets the sliders to the slot's latents.
  const settle = () => {
    const showsAll = 
      element("all-latents").getAttribute("aria-pressed") === "true";
    const count = showsAll ? latents.length : numShown;
    for (const latent of latents.slice(sliders.length, count)) {
      sliders.push(makeSlider(latent));
    }
    [...element("latents").children].forEach((label, i) => {
      label.style.display = i < count ? "" : "none";
    });
    sliders.forEach((settleSlider) => settleSlider());
    slotChoices[slot].checked = true;
  };

  const chooseScene = (b) => {
    current = b;
    element("scene").value = b;
    element("image").src = inferred[b].image;
    const other = element("other-scene");
    for (const option of other.options) {
      option.disabled = Number(option.value) === b;
    }
    if (scenes.length > 1 && Number(other.value) === b) {
      chooseOther((b + 1) % scenes.length);
    }
    settle();
    drawSoon();
  };
  const chooseOther = (b) => {
    element("other-scene").value = b;
    element("other-slot").value = inferred[b].object;
    const text = `Scene ${b + 1}, rendered`;
    element("other-caption").textContent = text;
    element("other-picture").setAttribute("aria-label", text);
  };

  const swap = () => {
    const other = scenes[Number(element("other-scene").value)];
    const [own, theirs] = ["own-slot", "other-slot"].map(
      (id) => Number(element(id).value));
    const scene = scenes[current];
    for (const key of ["latents", "present"]) {
      [scene[key][own], other[key][theirs]] =
        [other[key][theirs], scene[key][own]];
    }
    touch(scene);
    touch(other);
    settle();
    drawSoon();
  };

  options(element("scene"), scenes.length);
  options(element("other-scene"), scenes.length);
  options(element("own-slot"), numSlots);
  options(element("other-slot"), numSlots);
  element("own-slot").value = slot;
  element("range").textContent = EXPLORED.range_text;
  element("swap").hidden = scenes.length < 2;
  element("all-latents").textContent = `All ${latents.length} latents`;
  element("all-latents").hidden = latents.length <= numShown;
  for (const id of ["scene-picture", "masks", "other-picture"]) {
    Object.assign(element(id), {width, height});
  }

  element("scene").addEventListener("change", (event) =>
    chooseScene(Number(event.target.value)));
  element("other-scene").addEventListener("change", (event) => {
    chooseOther(Number(event.target.value));
    drawSoon();
  });
  element("reset").addEventListener("click", () => {
    scenes[current] = asInferred(current);
    chooseScene(current);
  });
  element("reset-all").addEventListener("click", () => {
    scenes.forEach((_, b) => { scenes[b] = asInferred(b); });
    chooseScene(current);
  });
  element("all-latents").addEventListener("click", (event) => {
    const button = event.currentTarget;
    button.setAttribute(
      "aria-pressed", button.getAttribute("aria-pressed") !== "true");
    settle();
  });
  element("swap-button").addEventListener("click", swap);

  try {
    decoder = await loadDecoder();
    if (scenes.length > 1) {
      chooseOther(1);
    }
    chooseScene(0);
    element("controls").hidden = false;
  } catch (error) {
    element("status").textContent =
      `This browser cannot run the decoder: ${error.message ?? error}`;
  }
})();
