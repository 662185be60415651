export { carriedEndpoint, carriedName, otherOctets, withFittingCertificates } from './carried.js';
export { CtlkeyMaker, ctlkeyFromOctets, ctlkeyToOctets, isSameCtlkey } from './ctlkey.js';
export { RevisionFloors } from './revoke.js';
export { Session, sessionInfoOf } from './session.js';
export type { Owner, SessionFacts } from './session.js';
export { mayHappen, nextState, transitions } from './states.js';
export type { SessionEvent, SessionState } from './states.js';
export { SessionTable, factsOf, limitReached } from './table.js';
