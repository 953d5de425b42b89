// Steps of a script, printed one a line; the first that fails ends it with 1.
let count = 0;

export async function step(name, run, limit = 15_000) {
  const number = ++count;
  try {
    const result = await within(limit, name, run());
    console.log(`ok ${number} - ${name}`);
    return result;
  } catch (error) {
    console.log(`not ok ${number} - ${name}`);
    console.log(describe(error).replace(/^/gm, '# '));
    process.exit(1);
  }
}

/** The steps of a group, whose name stands before theirs. */
export const group = (title) => (name, run, limit) => step(`${title}: ${name}`, run, limit);

/** Call last: a script that left something running must end all the same. */
export function done() {
  console.log(`1..${count}`);
  process.exit(0);
}

export function within(ms, name, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`nothing after ${ms} ms: ${name}`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Errors of another realm (jsdom's) are no instances of our Error. */
function describe(error) {
  if (typeof error !== 'object' || error === null) return String(error);
  const text = error.stack || error.errMsg || error.message || JSON.stringify(error);
  return error.cause ? `${text}\ncause: ${describe(error.cause)}` : String(text);
}
