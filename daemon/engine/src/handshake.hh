#pragma once

#include "ossl.hh"

namespace tlspool {

// Wires OpenSSL's callbacks (ClientHello, ALPN, verification, alerts) to the session that an SSL belongs to.
void install_handshake_callbacks(SSL_CTX* ctx);

// OpenSSL's name of a verification result, such as CERT_HAS_EXPIRED.
const char* verify_code_name(long code);

}  // namespace tlspool
