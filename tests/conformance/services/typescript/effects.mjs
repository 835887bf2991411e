// What handlers leave behind for a test to see; the same files as `../python/effects.py` writes.
import { closeSync, existsSync, fstatSync, openSync, renameSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";

const folder = process.env.CONFORMANCE_EFFECTS;

/** Appends one byte and answers the new size: how often a closure ran. */
export function count(name) {
  const file = openSync(join(folder, `${name}.count`), "a");
  try {
    writeSync(file, "x");
    return fstatSync(file).size;
  } finally {
    closeSync(file);
  }
}

/** Writes a text, as an awakeable's id, for the test to read. */
export function note(name, text) {
  const draft = join(folder, `${name}.draft.${process.pid}`);
  writeFileSync(draft, text);
  renameSync(draft, join(folder, `${name}.note`));
}

/** Tells whether the test has raised the flag of that name. */
export function raised(name) {
  return existsSync(join(folder, `${name}.flag`));
}

/** Waits until the test has opened the gate of that name. */
export async function passed(name) {
  while (!existsSync(join(folder, `${name}.gate`))) {
    await pause(10);
  }
}
