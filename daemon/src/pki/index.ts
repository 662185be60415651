/** The development PKI: a certificate authority in a folder, and identities in the layout that the pool reads. */
export { initCa, type Authority, type CaOptions } from './ca.js';
export { issue, maxLeafDays, type Issued, type IssueOptions, type KeyType } from './issue.js';
export type { SubjectNames } from './names.js';
