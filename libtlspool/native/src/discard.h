// The end of a descriptor that came from somebody else.
#pragma once

namespace tlspool {

// Closes it without waiting. close(2) of what somebody else has opened may take as long as he likes: a socket with SO_LINGER waits for its
// peer (socket(7)), O_NONBLOCK or not, and a file for whoever serves its file system (FUSE, NFS). It may also fail, which is of no interest
// here: Linux has released the descriptor all the same.
void discard(int fd);

}  // namespace tlspool
