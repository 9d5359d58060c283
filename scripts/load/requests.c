/* Usage: requests --port N --file FILE [--connections N] [--seconds S] [--rate N] [--busy 1]

   Sends the HTTP requests of FILE, in turn and from the start again, over --connections, each asking again as soon as it was
   answered; with --rate so many a second at random distances (Poisson), over whichever connection rests: a request's time
   begins when it was due, also if it had to wait for one. FILE: each request's length, 8 bytes little-endian, and the request
   itself. Every answer must be a 200 (--busy: 429 and 503 are counted as refused, with a time of their own).
   Says one line of JSON: done, seconds, microseconds, failures. */
#include "wire.h"
#include <math.h>

struct link { int fd, busy; size_t have, kept, sent, length, need; const char *request; uint64_t due; struct link *next; char heard[1 << 16]; };
struct due { uint64_t at; struct due *next; };

static struct link *links[MOST], *resting;
static struct { const char *text; size_t length; } requests[4096];
static struct sockaddr_in server = {.sin_family = AF_INET};
static size_t known, number, done, refused, failed, wrong, room, refused_room;
static float *took, *told;
static char problem[512];
static int set, busy_too, active;

static void put(float **list, size_t *count, size_t *room, uint64_t due) {
  if (*count == *room) *list = realloc(*list, (*room = *room ? *room * 2 : 1 << 14) * sizeof **list);
  (*list)[(*count)++] = (float)(nanoseconds() - due) / 1000;
}

static void rest(struct link *link) { active -= link->busy; link->busy = 0; link->next = resting; resting = link; }

static void push(struct link *link) {
  while (link->sent < link->length) {
    ssize_t gone = send(link->fd, link->request + link->sent, link->length - link->sent, MSG_NOSIGNAL);
    if (gone < 0) return;  /* EAGAIN, or an end that the reading side sees */
    link->sent += gone;
  }
}

static void closed(struct link *link) { links[link->fd] = NULL; close(link->fd); link->fd = -1; }

static void ask(struct link *link, uint64_t due) {
  if (link->fd < 0) {
    if ((link->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)) < 0) die("socket");
    no_delay(link->fd);
    links[link->fd] = link;
    if (connect(link->fd, (void *)&server, sizeof server) && errno != EINPROGRESS) die("connect");
    watch(set, link->fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
  }
  link->request = requests[number % known].text;
  link->length = requests[number++ % known].length;
  link->busy = 1;
  active++;
  link->have = link->kept = link->sent = link->need = 0;
  link->due = due;
  push(link);
}

static void answered(struct link *link) {
  int status = link->have > 12 ? atoi(link->heard + 9) : 0;
  if (status == 200) put(&took, &done, &room, link->due);
  else if (busy_too && (status == 429 || status == 503)) put(&told, &refused, &refused_room, link->due);
  else if (!wrong++) snprintf(problem, sizeof problem, "answered %.200s", link->heard);
  if (wrong > 1000) errno = 0, die(problem);
}

static void pull(struct link *link) {
  for (;;) {
    char spare[1 << 16];  /* of a long answer only the beginning is kept */
    size_t space = sizeof link->heard - 1 - link->kept;
    ssize_t got = space ? recv(link->fd, link->heard + link->kept, space, 0) : recv(link->fd, spare, sizeof spare, 0);
    if (got < 0 && (errno == EAGAIN || errno == ENOTCONN)) return;
    if (got <= 0) {
      closed(link);
      if (!link->busy) return;
      if (link->have > 12 && !link->need) answered(link);  /* its end is the connection's */
      else if (!failed++) snprintf(problem, sizeof problem, "closed without an answer");
      if (failed > 1000) errno = 0, die(problem);
      rest(link);
      return;
    }
    link->have += got;
    if (space) link->kept += got;
    link->heard[link->kept] = 0;
    char *end = link->need ? NULL : memmem(link->heard, link->kept, "\r\n\r\n", 4);
    if (end) {
      size_t head = end + 4 - link->heard;
      const char *length = field(link->heard, head, "Content-Length:");
      if (length) link->need = head + strtoull(length, NULL, 10);
      const char *coding = field(link->heard, head, "Transfer-Encoding:");
      if (coding && !strncasecmp(coding, "chunked", 7)) {  /* answers in pieces must fit: their last is looked for */
        if (link->kept == sizeof link->heard - 1) die("a chunked answer that is too long");
        if (link->kept >= head + 5 && !memcmp(link->heard + link->kept - 5, "0\r\n\r\n", 5)) link->need = link->have;
      }
    }
    if (!link->need || link->have < link->need) continue;
    int close_it = closes(link->heard, link->kept);
    answered(link);
    if (close_it) closed(link);
    rest(link);
    return;
  }
}

static int by_size(const void *one, const void *other) {
  float a = *(const float *)one, b = *(const float *)other;
  return (a > b) - (a < b);
}

static float at(float *list, size_t count, double share) { return count ? list[(size_t)((double)(count - 1) * share)] : 0; }

int main(int count, char **words) {
  int port = 0, connections = 8;
  double seconds = 1, rate = 0;
  const char *file = NULL;
  for (int i = 1; i + 1 < count; i += 2) {
    const char *word = words[i], *value = words[i + 1];
    if (!strcmp(word, "--port")) port = atoi(value);
    else if (!strcmp(word, "--file")) file = value;
    else if (!strcmp(word, "--connections")) connections = atoi(value);
    else if (!strcmp(word, "--seconds")) seconds = atof(value);
    else if (!strcmp(word, "--rate")) rate = atof(value);
    else if (!strcmp(word, "--busy")) busy_too = atoi(value);
    else die(word);
  }
  FILE *given = file ? fopen(file, "rb") : NULL;
  if (!given || !port || connections < 1 || connections > MOST / 2) die("--port, --file, --connections");
  for (uint64_t length; known < 4096 && fread(&length, 8, 1, given) == 1; known++) {
    char *text = malloc(length);
    if (fread(text, 1, length, given) != length) die("--file");
    requests[known].text = text;
    requests[known].length = length;
  }
  if (!known) die("--file");
  server.sin_port = htons(port);
  inet_pton(AF_INET, "127.0.0.1", &server.sin_addr);
  set = epoll_create1(0);
  for (int i = 0; i < connections; i++) {
    struct link *link = calloc(1, sizeof *link);
    link->fd = -1;
    rest(link);
  }
  uint64_t began = nanoseconds(), until = began + (uint64_t)(seconds * 1e9);
  double next = (double)began;
  struct due *first = NULL, **last = &first;
  srand48(1);
  struct epoll_event events[256];
  for (uint64_t now; (now = nanoseconds()) < until || active || first;) {
    if (!rate) while (resting && now < until) {
      struct link *link = resting;
      resting = link->next;
      ask(link, now);
    }
    for (; rate && next < (double)now && next < (double)until; next += -log(1 - drand48()) / rate * 1e9) {
      *last = calloc(1, sizeof **last);
      (*last)->at = (uint64_t)next;
      last = &(*last)->next;
    }
    while (first && resting) {
      struct link *link = resting;
      struct due *due = first;
      resting = link->next;
      if (!(first = due->next)) last = &first;
      ask(link, due->at);
      free(due);
    }
    int ready = epoll_wait(set, events, 256, rate ? 1 : 100);
    for (int i = 0; i < ready; i++) {
      struct link *link = links[events[i].data.fd];
      if (!link) continue;
      if (link->busy) push(link);
      if (events[i].events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) pull(link);
    }
    if (now > until + 120000000000u) die("answers that do not come");
  }
  double wall = (double)(nanoseconds() - began) / 1e9;
  qsort(took, done, sizeof *took, by_size);
  qsort(told, refused, sizeof *told, by_size);
  for (char *c = problem; *c; c++) if (*c == '"' || *c == '\\' || *c < ' ') *c = '\'';
  printf("{\"done\": %zu, \"seconds\": %.6f, \"median\": %.1f, \"p90\": %.1f, \"p99\": %.1f, \"refused\": %zu, \"refused_p99\": %.1f, "
         "\"failed\": %zu, \"wrong\": %zu, \"problem\": \"%s\"}\n",
         done, wall, at(took, done, .5), at(took, done, .9), at(took, done, .99), refused, at(told, refused, .99), failed, wrong, problem);
  return 0;
}
