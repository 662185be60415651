/** CRC32C (Castagnoli) as in RFC 9260 appendix A, formerly RFC 4960 appendix B: reflected, polynomial 0x1EDC6F41. */

const table = Uint32Array.from({ length: 256 }, (_, index) => {
  let value = index;
  for (let bit = 0; bit < 8; bit++) value = (value & 1) === 1 ? (value >>> 1) ^ 0x82f6_3b78 : value >>> 1;
  return value >>> 0;
});

/** The checksum of all the octets, 0 to 2^32 - 1. */
export function crc32c(octets: Uint8Array): number {
  let crc = 0xffff_ffff;
  for (const octet of octets) crc = (table[(crc ^ octet) & 0xff] as number) ^ (crc >>> 8);
  return ~crc >>> 0;
}
