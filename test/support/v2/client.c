/*
 * A client of the TLS Pool V2 protocol, written from the offsets of its frame and from nothing else. It reads commands from standard input, one a line, and
 * prints one line for each answer. Descriptors: one pool connection, one encrypted socket, one plaintext socket.
 *
 *   pool PATH | newpool PATH            connect; newpool keeps the connection before open
 *   ping PRODUCER FACILITIES
 *   listen | accept | connect PORT      the encrypted socket
 *   starttls FLAGS LOCALID REMOTEID TIMEOUT KEY     answers the callbacks; `-` is an empty text
 *   plainkind stream|seqpacket          of the plaintext socket that is passed
 *   atlocalid                           pass the plaintext socket with the answer to STARTTLS_LOCALID
 *   write TEXT | read N | shutdown | close    on the plaintext socket
 *   echo                                a process of its own gets the plaintext socket and sends back what it reads
 *   detach KEY | reattach KEY
 *   prng KEY LABEL CONTEXT LENGTH       CONTEXT `-`: none, `=`: empty
 *   info KEY KIND [HEX]
 *   command HEX                         an otherwise empty message, and its answer
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#pragma pack(push, 2)
struct frame {
  uint16_t reqid, cbid;
  uint32_t cmd;
  union {
    struct { int32_t tlserrno; char message[128]; } error;
    struct { char producer[136]; uint32_t facilities; } ping;
    struct {
      uint32_t flags, local;
      uint8_t ipproto;
      uint16_t streamid;
      char localid[128], remoteid[128];
      uint8_t ctlkey[16], service[16];
      uint32_t timeout;
    } starttls;
    struct { uint32_t flags, attempt, timeout_us; char pin[128], prompt[128], manuf[36], model[20], serial[20], label[36]; } pinentry;
    struct { uint32_t flags; uint16_t maxlevels; uint32_t timeout; char localid[128], remoteid[128]; } lidentry;
    struct { uint32_t flags; uint8_t ctlkey[16]; char name[128]; } control;
    struct { int16_t in1_len, in2_len, prng_len; uint8_t buffer[350]; } prng;
    struct { uint8_t ctlkey[16]; uint32_t kind; uint16_t len; uint8_t buffer[334]; } info;
    uint8_t octets[380];
  } data;
};
#pragma pack(pop)

#define AT(field, offset) _Static_assert(offsetof(struct frame, data.field) == offset, #field)
_Static_assert(sizeof(struct frame) == 388, "a frame has 388 octets");
_Static_assert(offsetof(struct frame, cbid) == 2 && offsetof(struct frame, cmd) == 4 && offsetof(struct frame, data) == 8, "the head");
AT(error.message, 12); AT(ping.facilities, 144);
AT(starttls.local, 12); AT(starttls.ipproto, 16); AT(starttls.streamid, 18); AT(starttls.localid, 20); AT(starttls.remoteid, 148);
AT(starttls.ctlkey, 276); AT(starttls.service, 292); AT(starttls.timeout, 308);
AT(pinentry.pin, 20); AT(pinentry.prompt, 148); AT(pinentry.manuf, 276); AT(pinentry.model, 312); AT(pinentry.serial, 332); AT(pinentry.label, 352);
AT(lidentry.maxlevels, 12); AT(lidentry.timeout, 14); AT(lidentry.localid, 18); AT(lidentry.remoteid, 146);
AT(control.ctlkey, 12); AT(control.name, 28); AT(prng.in2_len, 10); AT(prng.prng_len, 12); AT(prng.buffer, 14);
AT(info.kind, 24); AT(info.len, 28); AT(info.buffer, 30);

enum { ERROR = 1, PING = 0x10, STARTTLS = 0x24, STARTTLS_LOCALID = 0x28, PLAINTEXT_CONNECT = 0x2a, PRNG = 0x2b, INFO = 0x2c, DETACH = 0x100, REATTACH = 0x101 };

static int pool = -1, listener = -1, cryptfd = -1, plainfd = -1;
static int plain_kind = SOCK_STREAM, pass_at_localid = 0;
static uint16_t next_reqid = 0;

static void die(const char *what) {
  printf("dead %s: %s\n", what, strerror(errno));
  exit(1);
}

static void send_frame(struct frame *frame, int fd) {
  struct iovec part = {frame, sizeof *frame};
  char control[CMSG_SPACE(sizeof(int))] = {0};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
  if (fd >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
  }
  if (sendmsg(pool, &message, MSG_NOSIGNAL) != (ssize_t)sizeof *frame) die("sendmsg");
}

/* Like the original library: one recvmsg is one message, and no descriptor comes with it. */
static void receive_frame(struct frame *frame) {
  struct iovec part = {frame, sizeof *frame};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
  const ssize_t got = recvmsg(pool, &message, 0);
  if (got == 0) { printf("closed\n"); exit(2); }
  if (got != (ssize_t)sizeof *frame) die("recvmsg");
  if (message.msg_controllen != 0) die("ancillary data");
}

static void empty(struct frame *frame, uint32_t cmd) {
  memset(frame, 0, sizeof *frame);
  frame->reqid = next_reqid++;
  frame->cmd = cmd;
}

static void hex(const uint8_t *octets, size_t count) {
  for (size_t i = 0; i < count; i++) printf("%02x", octets[i]);
}

static size_t unhex(const char *text, uint8_t *octets, size_t most) {
  size_t count = 0;
  for (; count < most && text[2 * count] != 0 && text[2 * count + 1] != 0; count++) {
    unsigned value;
    if (sscanf(text + 2 * count, "%2x", &value) != 1) die("hex");
    octets[count] = (uint8_t)value;
  }
  return count;
}

static int is_error(const struct frame *frame) {
  if (frame->cmd != ERROR) return 0;
  printf("error %d reqid=%u cbid=%u %s\n", frame->data.error.tlserrno, frame->reqid, frame->cbid, frame->data.error.message);
  return 1;
}

static void text(char *field, const char *value) {
  if (strcmp(value, "-") != 0) snprintf(field, 128, "%s", value);
}

static void connect_pool(const char *path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
  pool = socket(AF_UNIX, SOCK_STREAM, 0);
  if (pool < 0 || connect(pool, (struct sockaddr *)&address, sizeof address) != 0) die("connect");
  printf("ok\n");
}

static void tcp(int port, int is_listener) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof address;
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  if (fd < 0) die("socket");
  if (!is_listener) {
    if (connect(fd, (struct sockaddr *)&address, size) != 0) die("connect");
    cryptfd = fd;
    printf("ok\n");
    return;
  }
  if (bind(fd, (struct sockaddr *)&address, size) != 0 || listen(fd, 16) != 0 || getsockname(fd, (struct sockaddr *)&address, &size) != 0) die("listen");
  listener = fd;
  printf("port %u\n", ntohs(address.sin_port));
}

/* Makes the plaintext socket; returns the end for the pool. */
static int make_plain(void) {
  int pair[2];
  if (socketpair(AF_UNIX, plain_kind, 0, pair) != 0) die("socketpair");
  plainfd = pair[0];
  return pair[1];
}

static void starttls(char **words) {
  struct frame frame;
  int passed = -1;
  empty(&frame, STARTTLS);
  frame.data.starttls.flags = (uint32_t)strtoul(words[1], NULL, 16);
  frame.data.starttls.ipproto = IPPROTO_TCP;
  text(frame.data.starttls.localid, words[2]);
  text(frame.data.starttls.remoteid, words[3]);
  frame.data.starttls.timeout = (uint32_t)strtoul(words[4], NULL, 0);
  unhex(words[5], frame.data.starttls.ctlkey, 16);
  send_frame(&frame, cryptfd);
  for (;;) {
    receive_frame(&frame);
    /* The library closes its copies at the first message of any kind. */
    if (cryptfd >= 0) close(cryptfd);
    if (passed >= 0) close(passed);
    cryptfd = passed = -1;
    if (is_error(&frame)) return;
    if (frame.cmd == STARTTLS) break;
    printf("callback %x cbid=%u localid=%s remoteid=%s\n", frame.cmd, frame.cbid, frame.data.starttls.localid, frame.data.starttls.remoteid);
    if (frame.cmd == PLAINTEXT_CONNECT || pass_at_localid) passed = make_plain();
    send_frame(&frame, passed);
  }
  printf("starttls flags=%x reqid=%u cbid=%u localid=%s remoteid=%s key=", frame.data.starttls.flags, frame.reqid, frame.cbid, frame.data.starttls.localid, frame.data.starttls.remoteid);
  hex(frame.data.starttls.ctlkey, 16);
  printf("\n");
}

static void control(uint32_t cmd, const char *key) {
  struct frame frame;
  empty(&frame, cmd);
  unhex(key, frame.data.control.ctlkey, 16);
  send_frame(&frame, -1);
  receive_frame(&frame);
  if (!is_error(&frame)) printf("success cmd=%x reqid=%u\n", frame.cmd, frame.reqid);
}

static void prng(char **words) {
  struct frame frame;
  const size_t label = strlen(words[2]);
  const char *context = strcmp(words[3], "=") == 0 ? "" : words[3];
  empty(&frame, PRNG);
  frame.data.prng.in1_len = (int16_t)label;
  frame.data.prng.in2_len = strcmp(context, "-") == 0 ? -1 : (int16_t)strlen(context);
  frame.data.prng.prng_len = (int16_t)atoi(words[4]);
  unhex(words[1], frame.data.prng.buffer, 16);
  memcpy(frame.data.prng.buffer + 16, words[2], label);
  if (frame.data.prng.in2_len > 0) memcpy(frame.data.prng.buffer + 16 + label, context, strlen(context));
  send_frame(&frame, -1);
  receive_frame(&frame);
  if (is_error(&frame)) return;
  printf("prng ");
  hex(frame.data.prng.buffer, (size_t)frame.data.prng.prng_len);
  printf("\n");
}

static void info(char **words) {
  struct frame frame;
  empty(&frame, INFO);
  unhex(words[1], frame.data.info.ctlkey, 16);
  frame.data.info.kind = (uint32_t)strtoul(words[2], NULL, 16);
  frame.data.info.len = words[3] == NULL ? 0xffff : (uint16_t)unhex(words[3], frame.data.info.buffer, sizeof frame.data.info.buffer);
  send_frame(&frame, -1);
  receive_frame(&frame);
  if (is_error(&frame)) return;
  printf("info ");
  hex(frame.data.info.buffer, frame.data.info.len);
  printf("\n");
}

static void command(const char *cmd) {
  struct frame frame;
  empty(&frame, (uint32_t)strtoul(cmd, NULL, 16));
  send_frame(&frame, -1);
  receive_frame(&frame);
  if (!is_error(&frame)) printf("answer cmd=%x\n", frame.cmd);
}

static void ping(char **words) {
  struct frame frame;
  empty(&frame, PING);
  snprintf(frame.data.ping.producer, sizeof frame.data.ping.producer, "%s", words[1]);
  frame.data.ping.facilities = (uint32_t)strtoul(words[2], NULL, 16);
  send_frame(&frame, -1);
  receive_frame(&frame);
  if (!is_error(&frame)) printf("ping %s facilities=%x\n", frame.data.ping.producer, frame.data.ping.facilities);
}

static void read_plain(size_t wanted) {
  char *octets = calloc(1, wanted + 1);
  size_t have = 0;
  while (have < wanted) {
    const ssize_t got = read(plainfd, octets + have, wanted - have);
    if (got <= 0) break;
    have += (size_t)got;
  }
  printf("read %s\n", octets);
  free(octets);
}

static void echo(void) {
  const pid_t child = fork();
  if (child < 0) die("fork");
  if (child > 0) {
    close(plainfd);
    plainfd = -1;
    printf("ok\n");
    return;
  }
  /* Nothing of the program is left but this socket. */
  for (int fd = 0; fd < 64; fd++) if (fd != plainfd) close(fd);
  char octets[4096];
  for (ssize_t got; (got = read(plainfd, octets, sizeof octets)) > 0;) if (write(plainfd, octets, (size_t)got) != got) break;
  _exit(0);
}

static int same(const char *a, const char *b) { return strcmp(a, b) == 0; }

int main(void) {
  char line[2048];
  setvbuf(stdout, NULL, _IOLBF, 0);
  while (fgets(line, sizeof line, stdin) != NULL) {
    char *words[8] = {0};
    int count = 0;
    for (char *word = strtok(line, " \n"); word != NULL && count < 7; word = strtok(NULL, " \n")) words[count++] = word;
    const char *verb = words[0] == NULL ? "" : words[0];
    if (same(verb, "pool") || same(verb, "newpool")) { if (same(verb, "pool") && pool >= 0) close(pool); connect_pool(words[1]); }
    else if (same(verb, "ping")) ping(words);
    else if (same(verb, "listen")) tcp(0, 1);
    else if (same(verb, "accept")) { cryptfd = accept(listener, NULL, NULL); printf(cryptfd < 0 ? "dead accept\n" : "ok\n"); }
    else if (same(verb, "connect")) tcp(atoi(words[1]), 0);
    else if (same(verb, "starttls")) starttls(words);
    else if (same(verb, "plainkind")) { plain_kind = same(words[1], "seqpacket") ? SOCK_SEQPACKET : SOCK_STREAM; printf("ok\n"); }
    else if (same(verb, "atlocalid")) { pass_at_localid = 1; printf("ok\n"); }
    else if (same(verb, "write")) { if (write(plainfd, words[1], strlen(words[1])) < 0) die("write"); printf("ok\n"); }
    else if (same(verb, "read")) read_plain((size_t)atoi(words[1]));
    else if (same(verb, "shutdown")) { shutdown(plainfd, SHUT_WR); printf("ok\n"); }
    else if (same(verb, "close")) { close(plainfd); plainfd = -1; printf("ok\n"); }
    else if (same(verb, "echo")) echo();
    else if (same(verb, "command")) command(words[1]);
    else if (same(verb, "detach")) control(DETACH, words[1]);
    else if (same(verb, "reattach")) control(REATTACH, words[1]);
    else if (same(verb, "prng")) prng(words);
    else if (same(verb, "info")) info(words);
    else { printf("dead unknown command %s\n", verb); return 1; }
  }
  return 0;
}
