/* Usage: sink --ports N [--host ADDRESS] [--service-us N] [--slots N] [--queue N]

   Workers without a model, one per port. Each takes uploads in, throws them away and answers [["daisy", 0.97], "TAG", BYTES].
   With --service-us an answer takes so long, in one of --slots at a time (1); beyond --queue waiting ones (no limit) it is 429.
   An upload that says `X-Check: 1` is compared byte for byte, and answered 500 when it is not what was sent.
   The ports are said on the first line; it ends with its standard input. */
#include "wire.h"

#define SPACE 4096
#define PORTS 64

struct connection {
  char space[SPACE], tag[TAG];
  size_t have;            /* of a head */
  uint64_t length, at;    /* of the body */
  int reading, check, wrong, close, worker;
};

struct turn { uint64_t due; int fd; uint32_t generation; struct turn *next; };

static struct worker { struct turn *first, *last; uint64_t *free_at; int waiting; } workers[PORTS];
static struct connection *connections[MOST];
static uint32_t generations[MOST];
static int set, listening[PORTS], ports = 4, slots = 1, queue = -1;
static uint64_t service;

static void gone(int fd) {
  generations[fd]++;
  free(connections[fd]);
  connections[fd] = NULL;
  close(fd);
}

static void answer(int fd, int status) {
  struct connection *c = connections[fd];
  char body[128], text[512];
  int size = snprintf(body, sizeof body, status == 200 ? "[[\"daisy\", 0.97], \"%.*s\", %llu]\n" : "{\"error\": \"%.*s %llu\"}\n",
                      c->at >= TAG ? TAG : 0, c->tag, (unsigned long long)c->at);
  int total = snprintf(text, sizeof text, "HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%s%s\r\n%s",
                       status == 200 ? "200 OK" : status == 429 ? "429 Too Many Requests" : "500 Internal Server Error", size,
                       status == 429 ? "Retry-After: 1\r\n" : "", c->close ? "Connection: close\r\n" : "", body);
  ssize_t sent = send(fd, text, total, MSG_NOSIGNAL);
  if (c->close || sent != total) gone(fd);
  else c->have = c->reading = 0;
}

static void finished(int fd) {
  struct connection *c = connections[fd];
  struct worker *w = &workers[c->worker];
  if (c->wrong) { answer(fd, 500); return; }
  if (!service) { answer(fd, 200); return; }
  if (queue >= 0 && w->waiting >= slots + queue) { answer(fd, 429); return; }
  int slot = 0;
  for (int i = 1; i < slots; i++) if (w->free_at[i] < w->free_at[slot]) slot = i;
  uint64_t now = nanoseconds(), start = w->free_at[slot] > now ? w->free_at[slot] : now;
  struct turn *t = malloc(sizeof *t);
  *t = (struct turn){w->free_at[slot] = start + service, fd, generations[fd], NULL};
  w->waiting++;
  if (w->last) w->last->next = t; else w->first = t;
  w->last = t;
}

/* Answers whose time has come. -> milliseconds until the next, -1 for none. */
static int turns(void) {
  uint64_t now = nanoseconds(), next = UINT64_MAX;
  for (struct worker *w = workers; w < workers + ports; w++) {
    for (struct turn *t; (t = w->first) && t->due <= now; free(t)) {
      if (!(w->first = t->next)) w->last = NULL;
      w->waiting--;
      if (generations[t->fd] == t->generation) answer(t->fd, 200);
    }
    if (w->first && w->first->due < next) next = w->first->due;
  }
  return next == UINT64_MAX ? -1 : (int)((next - now + 999999) / 1000000);
}

static void consume(struct connection *c, const char *data, size_t size) {
  for (size_t i = 0; i < size && c->at + i < TAG; i++) c->tag[c->at + i] = data[i];
  if (c->check)
    for (size_t i = 0; i < size; i++) c->wrong |= c->at + i >= TAG && (unsigned char)data[i] != pattern(c->at + i);
  c->at += size;
}

static int begin(struct connection *c) {
  char *end = memmem(c->space, c->have, "\r\n\r\n", 4);
  if (!end) return c->have < SPACE ? 0 : -1;
  size_t head = end + 4 - c->space;
  if (field(c->space, head, "Transfer-Encoding:")) return -1;  /* lengths only: nobody here needs chunks */
  const char *length = field(c->space, head, "Content-Length:");
  c->length = length ? strtoull(length, NULL, 10) : 0;
  c->close = closes(c->space, head);
  c->check = field(c->space, head, "X-Check:") != NULL;
  c->at = 0;
  c->wrong = 0;
  c->reading = 1;
  if (c->have - head > c->length) return -1;
  consume(c, c->space + head, c->have - head);
  return 1;
}

static void readable(int fd) {
  static char scratch[1 << 16];
  struct connection *c = connections[fd];
  for (;;) {
    ssize_t got;
    if (!c->reading) {
      got = recv(fd, c->space + c->have, SPACE - c->have, 0);
      if (got > 0) {
        c->have += got;
        int begun = begin(c);
        if (begun < 0) { gone(fd); return; }
        if (!begun) continue;
      }
    } else if (c->at == c->length) {
      got = recv(fd, scratch, 1, MSG_PEEK);  /* its answer is due later */
      if (got > 0) { gone(fd); return; }
    } else if (c->check || c->at < TAG) {
      size_t left = c->length - c->at, most = c->check ? sizeof scratch : TAG - c->at;
      if ((got = recv(fd, scratch, left < most ? left : most, 0)) > 0) consume(c, scratch, got);
    } else if ((got = recv(fd, NULL, c->length - c->at, MSG_TRUNC)) > 0) c->at += got;
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
      /* Who writes an upload in two pieces without TCP_NODELAY, as nginx does from its file, would wait 40 ms for our ACK. */
      if (c->reading && c->at < c->length) setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &(int){1}, sizeof(int));
      return;
    }
    if (got <= 0) { gone(fd); return; }
    if (c->reading && c->at == c->length) { finished(fd); return; }
  }
}

static void take(int worker) {
  for (int fd; (fd = accept4(listening[worker], NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
    if (fd >= MOST) { close(fd); continue; }
    no_delay(fd);
    connections[fd] = calloc(1, sizeof(struct connection));
    connections[fd]->worker = worker;
    watch(set, fd, EPOLLIN);
  }
}

int main(int count, char **words) {
  const char *host = "127.0.0.1";
  for (int i = 1; i + 1 < count; i += 2) {
    if (!strcmp(words[i], "--ports")) ports = atoi(words[i + 1]);
    else if (!strcmp(words[i], "--host")) host = words[i + 1];
    else if (!strcmp(words[i], "--service-us")) service = strtoull(words[i + 1], NULL, 10) * 1000;
    else if (!strcmp(words[i], "--slots")) slots = atoi(words[i + 1]);
    else if (!strcmp(words[i], "--queue")) queue = atoi(words[i + 1]);
    else die(words[i]);
  }
  if (ports < 1 || ports > PORTS || slots < 1) die("--ports, --slots");
  set = epoll_create1(0);
  for (int i = 0; i < ports; i++) {
    struct sockaddr_in at = {.sin_family = AF_INET};
    socklen_t size = sizeof at;
    inet_pton(AF_INET, host, &at.sin_addr);
    listening[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (bind(listening[i], (void *)&at, sizeof at) || listen(listening[i], 4096)) die("listen");
    getsockname(listening[i], (void *)&at, &size);
    printf("%d%c", ntohs(at.sin_port), i + 1 < ports ? ' ' : '\n');
    watch(set, listening[i], EPOLLIN);
    workers[i].free_at = calloc(slots, sizeof(uint64_t));
  }
  fflush(stdout);
  fcntl(0, F_SETFL, O_NONBLOCK);
  watch(set, 0, EPOLLIN);
  struct epoll_event events[256];
  for (;;) {
    int ready = epoll_wait(set, events, 256, turns());
    for (int i = 0; i < ready; i++) {
      int fd = events[i].data.fd, worker = 0;
      if (!fd) return 0;
      while (worker < ports && listening[worker] != fd) worker++;
      if (worker < ports) take(worker);
      else if (connections[fd]) readable(fd);
    }
  }
}
