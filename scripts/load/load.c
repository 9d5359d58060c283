/* Usage: load --port N [--host ADDRESS] [--size BYTES] [--get 1] [--by-address 1] [--workers PORT,PORT,...] [--connections N]
               [--seconds S] [--rate N] [--new 1] [--check 1] [--busy 1]

   Uploads of --size over --connections, each asking again as soon as it was answered; with --rate so many a second, whether
   answered or not. --get: asks for an address and no more; --by-address: asks, then uploads to that worker. --new: a connection
   for each request, closed by the server. --check: workers compare what they get. --busy: 429 and 503 are answers like others.
   Each answer is compared, byte for byte, with the right one. Says one line of JSON: done, seconds, microseconds, failures. */
#include "wire.h"

#define WORKERS 64

struct link {
  int fd, to, get, busy, ending;
  size_t have, head, sent, total;
  char said[512], heard[4096];
  struct slot *slot;
};

static struct slot { struct link door, *worker[WORKERS]; uint64_t began; struct slot *next; } *slots, *resting;
static struct { struct sockaddr_in at; char host[64]; } peers[WORKERS];  /* the first is the door */
static struct link *links[MOST];
static int set, known = 1, get, by_address, fresh, check, busy_too, expected[WORKERS], workers;
static size_t size = 1000, active, failed, wrong, refused, opened, missed, done, room, through;
static float *took;
static char *body, problem[512];
static uint64_t until, number;

static void start(struct slot *slot);

static void drop(struct link *link) {
  links[link->fd] = NULL;
  close(link->fd);
  link->fd = -1;
  link->busy = link->ending = 0;
}

static void next(struct slot *slot, uint64_t now) {
  if (now >= until) active--;
  else if (resting || !slots) { slot->next = resting; resting = slot; active--; }
  else start(slot);
}

static void complete(struct slot *slot, int good) {
  uint64_t now = nanoseconds();
  if (good) {
    if (done == room) took = realloc(took, (room = room ? room * 2 : 1 << 16) * sizeof *took);
    took[done++] = (float)(now - slot->began) / 1000;
  }
  next(slot, now);
}

static void lost(struct link *link, const char *why) {
  int busy = link->busy;
  struct slot *slot = link->slot;
  drop(link);
  if (!busy) return;
  if (!*problem) snprintf(problem, sizeof problem, "%s", why);
  if (++failed > 10000) errno = 0, die(problem);
  complete(slot, 0);
}

static void push(struct link *link) {
  while (link->sent < link->total) {
    struct iovec parts[2];
    int count = 0;
    if (link->sent < link->head) parts[count++] = (struct iovec){link->said + link->sent, link->head - link->sent};
    size_t of_body = link->sent > link->head ? link->sent - link->head : 0;
    if (link->total > link->head) parts[count++] = (struct iovec){body + TAG + of_body, link->total - link->head - of_body};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = count};
    ssize_t gone = sendmsg(link->fd, &message, MSG_NOSIGNAL);
    if (gone < 0) {
      if (errno != EAGAIN && errno != ENOTCONN && errno != EINPROGRESS && errno != EPIPE && errno != ECONNRESET)
        lost(link, strerror(errno));
      return;  /* what was closed may have been answered */
    }
    link->sent += gone;
  }
}

static void ask(struct slot *slot, struct link *link, int to, int getting) {
  if (link->fd < 0) {
    if ((link->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)) < 0) die("socket");
    if (link->fd >= MOST) die("--connections");
    no_delay(link->fd);
    links[link->fd] = link;
    link->slot = slot;
    opened++;
    int refused_at_once = connect(link->fd, (void *)&peers[to].at, sizeof peers[to].at) && errno != EINPROGRESS;
    watch(set, link->fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
    if (refused_at_once) { link->busy = 1; lost(link, strerror(errno)); return; }
  }
  link->busy = 1;
  link->to = to;
  link->get = getting;
  link->have = link->sent = 0;
  const char *close_it = fresh ? "Connection: close\r\n" : "", *check_it = check ? "X-Check: 1\r\n" : "";
  link->head = getting
      ? sprintf(link->said, "GET / HTTP/1.1\r\nHost: %s\r\n%s\r\n", peers[to].host, close_it)
      : sprintf(link->said, "POST / HTTP/1.1\r\nHost: %s\r\nContent-Type: image/jpeg\r\nContent-Length: %zu\r\n%s%s\r\n%016llx",
                peers[to].host, size, close_it, check_it, (unsigned long long)(number++ * 0x9e3779b97f4a7c15u));
  link->total = link->head + (getting ? 0 : size - TAG);
  if (!to) through += link->total;
  push(link);
}

static void start(struct slot *slot) {
  slot->began = nanoseconds();
  ask(slot, &slot->door, 0, get || by_address);
}

/* -> which peer an address in an answer means; 0 if it is none of the workers'. */
static int peer(const char *text) {
  char host[64] = "127.0.0.1";
  const char *colon = strrchr(text, ':');
  if (colon) snprintf(host, sizeof host, "%.*s", (int)(colon - text), text);
  int port = atoi(colon ? colon + 1 : text), expected_one = 0;
  for (int i = 0; i < workers; i++) expected_one |= expected[i] == port;
  if (!expected_one || port <= 0) return 0;
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
  if (inet_pton(AF_INET, host, &at.sin_addr) != 1) return 0;
  for (int i = 1; i < known; i++)
    if (peers[i].at.sin_port == at.sin_port && peers[i].at.sin_addr.s_addr == at.sin_addr.s_addr) return i;
  if (known == WORKERS) return 0;
  peers[known].at = at;
  snprintf(peers[known].host, sizeof peers[known].host, "%.40s:%d", host, port);
  return known++;
}

static void answered(struct link *link, size_t head, size_t length) {
  struct slot *slot = link->slot;
  int status = atoi(link->heard + 9), to = 0, good = 0;
  char *text = link->heard + head, right[128];
  text[length] = 0;
  if (status == 200 && link->get) good = (to = peer(text)) > 0;
  else if (status == 200) {
    int expects = snprintf(right, sizeof right, "[[\"daisy\", 0.97], \"%.16s\", %zu]\n", link->said + link->head - TAG, size);
    good = (size_t)expects == length && !memcmp(right, text, length);
  }
  if (busy_too && (status == 429 || status == 503)) refused++;
  else if (!good && !wrong++) snprintf(problem, sizeof problem, "answered %.200s", link->heard);
  if (wrong > 1000) errno = 0, die(problem);
  if (!link->to) through += head + length;
  int unsent = link->sent < link->total, close_it = unsent || closes(link->heard, head);
  link->busy = 0;
  if (fresh && !unsent) { link->ending = good ? 1 : 2; return; }  /* until the server has closed */
  if (close_it) drop(link);
  if (!by_address || !link->get || !good) { complete(slot, good); return; }
  struct link **worker = &slot->worker[to];
  if (!*worker) {
    *worker = calloc(1, sizeof **worker);
    (*worker)->fd = -1;
  }
  ask(slot, *worker, to, 0);
}

static void pull(struct link *link) {
  for (;;) {
    ssize_t got = recv(link->fd, link->heard + link->have, sizeof link->heard - 1 - link->have, 0);
    if (got < 0 && (errno == EAGAIN || errno == ENOTCONN)) return;
    if (link->ending && got <= 0) {
      int good = link->ending == 1;
      drop(link);
      complete(link->slot, good);
      return;
    }
    if (got <= 0) { lost(link, got ? strerror(errno) : "closed without an answer"); return; }
    link->have += got;
    char *end = memmem(link->heard, link->have, "\r\n\r\n", 4);
    if (!link->busy || (!end && link->have == sizeof link->heard - 1)) { lost(link, "said more than an answer"); return; }
    if (!end) continue;
    size_t head = end + 4 - link->heard;
    const char *length = field(link->heard, head, "Content-Length:");
    if (!length) { lost(link, "an answer without a length"); return; }
    size_t bytes = strtoull(length, NULL, 10);
    if (link->have < head + bytes) continue;
    answered(link, head, bytes);
    if (!link->ending) return;
  }
}

static int by_size(const void *one, const void *other) {
  float a = *(const float *)one, b = *(const float *)other;
  return (a > b) - (a < b);
}

int main(int count, char **words) {
  const char *host = "127.0.0.1";
  int port = 0, connections = 16;
  double seconds = 1, rate = 0;
  for (int i = 1; i + 1 < count; i += 2) {
    const char *word = words[i], *value = words[i + 1];
    if (!strcmp(word, "--port")) port = atoi(value);
    else if (!strcmp(word, "--host")) host = value;
    else if (!strcmp(word, "--size")) size = strtoull(value, NULL, 10);
    else if (!strcmp(word, "--get")) get = atoi(value);
    else if (!strcmp(word, "--by-address")) by_address = atoi(value);
    else if (!strcmp(word, "--connections")) connections = atoi(value);
    else if (!strcmp(word, "--seconds")) seconds = atof(value);
    else if (!strcmp(word, "--rate")) rate = atof(value);
    else if (!strcmp(word, "--new")) fresh = atoi(value);
    else if (!strcmp(word, "--check")) check = atoi(value);
    else if (!strcmp(word, "--busy")) busy_too = atoi(value);
    else if (!strcmp(word, "--workers"))
      for (char *at = (char *)value; *at && workers < WORKERS; at += *at == ',') expected[workers++] = (int)strtol(at, &at, 10);
    else die(word);
  }
  if (size < TAG || connections < 1 || !port) die("--size, --connections, --port");
  body = malloc(size);
  for (size_t i = 0; i < size; i++) body[i] = (char)pattern(i);
  peers[0].at = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port)};
  inet_pton(AF_INET, host, &peers[0].at.sin_addr);
  snprintf(peers[0].host, sizeof peers[0].host, "%.40s:%d", host, port);
  set = epoll_create1(0);
  struct slot *all = calloc(connections, sizeof *all);
  for (struct slot *slot = all; slot < all + connections; slot++) {
    slot->door.fd = -1;
    if (rate) { slot->next = resting; resting = slot; }
  }
  uint64_t began = nanoseconds(), started = 0;
  number = began;
  until = began + (uint64_t)(seconds * 1e9);
  if (!rate) {
    slots = all;
    active = connections;
    for (int i = 0; i < connections; i++) start(all + i);
  }
  struct epoll_event events[256];
  for (uint64_t now; (now = nanoseconds()) < until || active;) {
    for (; rate && now < until && started < (double)(now - began) * rate / 1e9; started++) {
      struct slot *slot = resting;
      if (!slot) { missed++; continue; }
      resting = slot->next;
      active++;
      start(slot);
    }
    int ready = epoll_wait(set, events, 256, rate ? 1 : 1000);
    for (int i = 0; i < ready; i++) {
      int fd = events[i].data.fd;
      if (links[fd] && links[fd]->busy) push(links[fd]);
      if (links[fd] && events[i].events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) pull(links[fd]);
    }
    if (now > until + 60000000000u) die("answers that do not come");
  }
  double wall = (double)(nanoseconds() - began) / 1e9;
  qsort(took, done, sizeof *took, by_size);
  for (char *at = problem; *at; at++) if (*at == '"' || *at == '\\' || *at < ' ') *at = '\'';
  printf("{\"done\": %zu, \"seconds\": %.6f, \"median\": %.2f, \"p99\": %.2f, \"refused\": %zu, \"failed\": %zu, \"wrong\": %zu, "
         "\"missed\": %zu, \"opened\": %zu, \"through\": %zu, \"problem\": \"%s\"}\n",
         done, wall, done ? took[done / 2] : 0.0, done ? took[(size_t)(done * 0.99)] : 0.0, refused, failed, wrong, missed, opened,
         through, problem);
  return 0;
}
