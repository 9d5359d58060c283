/* What the load and the sinks agree on: HTTP/1.1 as far as they speak it, and what uploads are made of. */
#pragma once
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define TAG 16       /* bytes an upload begins with, its own; the answer repeats them */
#define MOST 65536   /* file descriptors */

static inline unsigned char pattern(size_t at) { return (unsigned char)((uint32_t)at * 2654435761u >> 24); }

static inline uint64_t nanoseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static inline void die(const char *what) {
  fprintf(stderr, errno ? "%s: %s\n" : "%s\n", what, strerror(errno));
  exit(2);
}

/* -> the value of a field in a head of `length` bytes (with its empty line), or NULL. `name` is given as "Name:". */
static inline const char *field(const char *head, size_t length, const char *name) {
  size_t size = strlen(name);
  for (const char *line = head, *end = head + length; (line = memchr(line, '\n', end - line)) && ++line + size < end;)
    if (!strncasecmp(line, name, size)) {
      for (line += size; *line == ' ';) line++;
      return line;
    }
  return NULL;
}

static inline int closes(const char *head, size_t length) {
  const char *said = field(head, length, "Connection:");
  return said && !strncasecmp(said, "close", 5);
}

static inline int watch(int set, int fd, uint32_t events) {
  struct epoll_event event = {.events = events, .data.fd = fd};
  return epoll_ctl(set, EPOLL_CTL_ADD, fd, &event);
}

static inline void no_delay(int fd) { setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int)); }
