/* Preloaded: a disk that refuses. While the file named by FAULT_TRIGGER exists and holds "CALLS ERRNO" (CALLS: the sum of
 * 1 for syncs, 2 for writes and truncations, 4 for reads), those calls fail with ERRNO on files below FAULT_UNDER. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

enum { SYNCS = 1, WRITES = 2, READS = 4 };

static int refused(int fd, int call) {
  const char *trigger = getenv("FAULT_TRIGGER"), *under = getenv("FAULT_UNDER");
  char text[32] = "", link[64], path[4096];
  int calls = 0, number = 0, saved = errno;
  int from = trigger && under ? open(trigger, O_RDONLY | O_CLOEXEC) : -1;
  if (from < 0) {
    errno = saved;
    return 0;
  }
  ssize_t size = read(from, text, sizeof text - 1);
  close(from);
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  errno = saved;
  if (size <= 0 || length <= 0 || sscanf(text, "%d %d", &calls, &number) != 2 || !(calls & call)) return 0;
  path[length] = '\0';
  if (strncmp(path, under, strlen(under)) != 0) return 0;
  errno = number;
  return 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int fsync(int fd) { return refused(fd, SYNCS) ? -1 : REAL(fsync)(fd); }

int fdatasync(int fd) { return refused(fd, SYNCS) ? -1 : REAL(fdatasync)(fd); }

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
  return refused(fd, WRITES) ? -1 : REAL(pwrite)(fd, data, size, offset);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) {
  return refused(fd, WRITES) ? -1 : REAL(pwrite64)(fd, data, size, offset);
}

int ftruncate(int fd, off_t size) { return refused(fd, WRITES) ? -1 : REAL(ftruncate)(fd, size); }

int ftruncate64(int fd, off64_t size) { return refused(fd, WRITES) ? -1 : REAL(ftruncate64)(fd, size); }

ssize_t pread(int fd, void *data, size_t size, off_t offset) {
  return refused(fd, READS) ? -1 : REAL(pread)(fd, data, size, offset);
}

ssize_t pread64(int fd, void *data, size_t size, off64_t offset) {
  return refused(fd, READS) ? -1 : REAL(pread64)(fd, data, size, offset);
}
