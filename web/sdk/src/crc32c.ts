// CRC-32 with the Castagnoli polynomial (RFC 3720), which minigate checks for
// each part of an upload.

let table: Uint32Array | undefined;

function makeTable(): Uint32Array {
  const t = new Uint32Array(256);
  for (let i = 0; i < 256; i++) {
    let c = i;
    for (let k = 0; k < 8; k++) c = c & 1 ? (c >>> 1) ^ 0x82f63b78 : c >>> 1;
    t[i] = c >>> 0;
  }
  return t;
}

/** The checksum in eight hexadecimal digits, the most significant first. */
export function crc32c(data: ArrayBuffer): string {
  const t = table || (table = makeTable());
  const bytes = new Uint8Array(data);
  let c = 0xffffffff;
  for (let i = 0; i < bytes.length; i++) c = t[(c ^ bytes[i]) & 0xff] ^ (c >>> 8);
  return ((c ^ 0xffffffff) >>> 0).toString(16).padStart(8, '0');
}
