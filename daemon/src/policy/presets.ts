/**
 * What may be negotiated, by the names of Mozilla's "Server Side TLS" guidelines, version 5.7 and its later groups.
 * Of intermediate the DHE suites are left out: no client in use needs them, and they cost CPU and fixed groups.
 */
import type { ContextSpec } from '../engine.js';
import type { PolicyName } from '../identity/types.js';

export type Preset = Pick<ContextSpec, 'minVersion' | 'maxVersion' | 'ciphers' | 'ciphersuites' | 'groups' | 'preferServerCiphers'>;

/** TLS 1.2 with ECDHE and AEAD only: forward secret, no CBC. */
const tls12Suites = [
  'ECDHE-ECDSA-AES128-GCM-SHA256', 'ECDHE-RSA-AES128-GCM-SHA256',
  'ECDHE-ECDSA-AES256-GCM-SHA384', 'ECDHE-RSA-AES256-GCM-SHA384',
  'ECDHE-ECDSA-CHACHA20-POLY1305', 'ECDHE-RSA-CHACHA20-POLY1305',
].join(':');

/** RFC 8446 section 9.1: the first is mandatory to implement, the others are recommended. */
const tls13Suites = ['TLS_AES_128_GCM_SHA256', 'TLS_AES_256_GCM_SHA384', 'TLS_CHACHA20_POLY1305_SHA256'].join(':');

const common = {
  maxVersion: 'TLSv1.3', ciphers: tls12Suites, ciphersuites: tls13Suites,
  // Hybrid post-quantum first (draft-ietf-tls-ecdhe-mlkem): what is recorded today must not open in ten years.
  groups: ['X25519MLKEM768', 'X25519', 'P-256', 'P-384'],
  // All suites are good; an order of our own keeps the cheapest first and scanners content.
  preferServerCiphers: true,
} as const;

export const presets: Readonly<Record<PolicyName, Preset>> = {
  modern: { ...common, minVersion: 'TLSv1.3' },
  intermediate: { ...common, minVersion: 'TLSv1.2' },
};
