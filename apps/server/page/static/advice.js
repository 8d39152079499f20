// What to do about a task that failed, by its cause (`cause` of results).

const ADVICE = {
  input: "Change what it asks for: the reason names it.",
  lora: "Choose another LoRA, or repair the file.",
  model: "The model cannot be used as it is set; the server's log says more.",
  exception: "This is a fault of the program or of a library; the server's log says more.",
  out_of_memory: "Ask for a smaller picture, or choose a memory mode that needs less.",
  device: "The GPU reported a fault. Run it again; if it fails again, look at the GPU.",
  storage: "The disk took nothing more. Make room on it, then run it again.",
  hung: "It took far longer than such tasks do. Run it again.",
  crash: "It ended the process of its worker. Run it once more; if it ends it again, leave it out.",
  sigkill: "Its worker was killed, perhaps for want of memory. Run it again.",
  error: "Run it again; if it fails again, the server's log says more.",
};

/** A sentence on what to do about a failed result. */
export function adviceFor(result) {
  return ADVICE[result.cause] ?? (result.attempts ? ADVICE.error : ADVICE.input);
}
