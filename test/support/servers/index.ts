/** Real servers from Debian, each in a plain-text configuration and in one with its own STARTTLS, on loopback. */
export * from './dovecot.js';
export * from './inspircd.js';
export * from './mariadb.js';
export * from './ngircd.js';
export * from './postfix.js';
export * from './postgres.js';
export * from './prosody.js';
export * from './proxies.js';
export * from './server.js';
export * from './slapd.js';
export * from './vsftpd.js';
