// The one threading seam, and the only file with threads, atomics or allocation: one team of sleeping workers for the process.
//
// A job is published by one 64-bit gate: its generation above, the places left below. A worker joins by taking a place with a
// compare-and-swap, so a late one cannot touch a job that has ended. The caller works too, closes the gate (which tells it how
// many joined) and waits for exactly those. Whoever finds the team taken does its own work in place.
#if defined(__linux__)
#define _GNU_SOURCE
#endif
#include "include/ck_parallel.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum {
  MOST_WORKERS = 255,
  PLACE_BITS = 16,
  SPIN_NANOSECONDS = 30000,
  EXIT_NANOSECONDS = 1000000000,
  HUGE_PAGE = 2 << 20,
};
#define PLACES(gate) ((gate) & ((1u << PLACE_BITS) - 1))

// What a worker polls, what the participants contend for, and what the caller polls sit on lines of their own.
static struct {
  _Alignas(64) _Atomic uint64_t gate;
  ck_task task;
  const void *context;
  size_t count, grain, places;
  _Alignas(64) _Atomic size_t next;  // first item not yet taken
  _Alignas(64) _Atomic size_t done;  // workers that joined this job and left it
  _Alignas(64) _Atomic int taken;    // a caller owns the team
  _Atomic size_t callers;            // calls in progress that asked for more than their own thread
  _Atomic size_t workers;            // threads that reached the worker loop
  _Atomic size_t sleepers;
  _Atomic size_t missing;  // threads asked for that have not begun
  _Atomic int ending;      // the process ends: no thread begins
  size_t asked;            // threads requested so far; the owner's
  pthread_mutex_t mutex;
  pthread_cond_t wake;
} team = {.mutex = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};

static _Thread_local int in_task;
static _Thread_local size_t participant;

static void pause_cpu(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

static int64_t nanoseconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

// Takes pieces until none is left.
static void work(size_t index) {
  const size_t outer = participant;
  in_task = 1, participant = index;
  for (;;) {
    const size_t first = atomic_fetch_add_explicit(&team.next, team.grain, memory_order_relaxed);
    if (first >= team.count) break;
    team.task(team.context, first, team.count - first < team.grain ? team.count : first + team.grain);
  }
  in_task = 0, participant = outer;
}

static int joinable(uint64_t gate, uint64_t last) { return PLACES(gate) && gate >> PLACE_BITS != last; }

// Polls for a job for a while, then sleeps for one. `last` is the generation this worker has already served.
static uint64_t await_job(uint64_t last) {
  uint64_t gate;
  const int64_t start = nanoseconds();
  do {
    for (int i = 0; i < 32; i++) {
      gate = atomic_load_explicit(&team.gate, memory_order_acquire);
      if (joinable(gate, last)) return gate;
      pause_cpu();
    }
  } while (nanoseconds() - start < SPIN_NANOSECONDS);

  // Announced before the last look, as a caller publishes before it counts sleepers: one of the two sees the other.
  pthread_mutex_lock(&team.mutex);
  atomic_fetch_add(&team.sleepers, 1);
  while (gate = atomic_load(&team.gate), !joinable(gate, last)) pthread_cond_wait(&team.wake, &team.mutex);
  atomic_fetch_sub(&team.sleepers, 1);
  pthread_mutex_unlock(&team.mutex);
  return gate;
}

static void serve(void) {
  uint64_t last = 0;
  atomic_fetch_add(&team.workers, 1);
  for (;;) {
    uint64_t gate = await_job(last);
    while (joinable(gate, last) && !atomic_compare_exchange_weak(&team.gate, &gate, gate - 1)) continue;
    if (!joinable(gate, last)) continue;
    last = gate >> PLACE_BITS;
    work(team.places - PLACES(gate) + 1);
    atomic_fetch_add_explicit(&team.done, 1, memory_order_release);
  }
}

// How threads are made is all that differs between the two kinds of team: a helper thread is a worker, or the root of an
// OpenMP region of workers that never ends, so the runtime places them and has one hot team whoever calls.
#if defined(CK_OPENMP)
int omp_get_num_threads(void);
int omp_get_thread_num(void);

static void *start_thread(void *count) {
  const size_t wanted = (size_t)(uintptr_t)count;
#pragma omp parallel num_threads((int)wanted)
  {
    // A region may have fewer threads than it was asked for.
    const size_t absent = omp_get_thread_num() ? 0 : wanted - (size_t)omp_get_num_threads();
    atomic_fetch_sub(&team.missing, 1 + absent);
    serve();
  }
  return 0;
}

#else
static void *start_thread(void *count) {
  (void)count;
  atomic_fetch_sub(&team.missing, 1);
  serve();
  return 0;
}
#endif

// At exit: the end of the OpenMP runtime crashes threads that are about to enter it.
static void settle_team(void) {
  atomic_store(&team.ending, 1);
  for (const int64_t start = nanoseconds(); atomic_load(&team.missing) && nanoseconds() - start < EXIT_NANOSECONDS;)
    sched_yield();
}

static void forget_team(void) {
  atomic_store(&team.gate, 0), atomic_store(&team.taken, 0), atomic_store(&team.workers, 0), atomic_store(&team.sleepers, 0);
  atomic_store(&team.callers, 0), atomic_store(&team.missing, 0);
  team.asked = 0;
  pthread_mutex_init(&team.mutex, 0), pthread_cond_init(&team.wake, 0);
}

static void watch_process(void) {
  pthread_atfork(0, 0, forget_team);
  atexit(settle_team);
}

// Threads stay for the life of the process and take no signals. A team that cannot grow is a smaller team.
static void grow_team(size_t workers) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, watch_process);
  pthread_attr_t detached;
  if (pthread_attr_init(&detached)) return;
  pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
  sigset_t every, before;
  sigfillset(&every);
  pthread_sigmask(SIG_SETMASK, &every, &before);
  while (team.asked < workers) {
#if defined(CK_OPENMP)
    const size_t batch = workers - team.asked;
#else
    const size_t batch = 1;
#endif
    pthread_t thread;
    atomic_fetch_add(&team.missing, batch);  // before it looks, as settle_team ends and then counts
    if (atomic_load(&team.ending) || pthread_create(&thread, &detached, start_thread, (void *)(uintptr_t)batch)) {
      atomic_fetch_sub(&team.missing, batch);
      break;
    }
    team.asked += batch;
  }
  pthread_sigmask(SIG_SETMASK, &before, 0);
  pthread_attr_destroy(&detached);
}

static void wake_sleepers(size_t wanted) {
  const size_t sleepers = atomic_load(&team.sleepers), workers = atomic_load(&team.workers);
  const size_t awake = workers > sleepers ? workers - sleepers : 0;
  if (!sleepers || awake >= wanted) return;
  pthread_mutex_lock(&team.mutex);
  for (size_t i = awake; i < wanted && i - awake < sleepers; i++) pthread_cond_signal(&team.wake);
  pthread_mutex_unlock(&team.mutex);
}

static void run_in_place(size_t count, size_t grain, ck_task task, const void *context) {
  const int outer = in_task;
  const size_t index = participant;
  in_task = 1, participant = 0;
  for (size_t first = 0; first < count;) {
    const size_t last = count - first < grain ? count : first + grain;
    task(context, first, last);
    first = last;
  }
  in_task = outer, participant = index;
}

static void run_on_team(size_t count, size_t grain, size_t wanted, ck_task task, const void *context) {
  if (team.asked < wanted) grow_team(wanted);

  const uint64_t generation = (atomic_load_explicit(&team.gate, memory_order_relaxed) >> PLACE_BITS) + 1;
  team.task = task, team.context = context, team.count = count, team.grain = grain, team.places = wanted;
  atomic_store_explicit(&team.next, 0, memory_order_relaxed);
  atomic_store_explicit(&team.done, 0, memory_order_relaxed);
  atomic_store(&team.gate, generation << PLACE_BITS | wanted);
  wake_sleepers(wanted);
  work(0);

  const uint64_t closed = atomic_exchange(&team.gate, generation << PLACE_BITS);
  const size_t joined = wanted - PLACES(closed);
  for (size_t spins = 0; atomic_load_explicit(&team.done, memory_order_acquire) != joined; spins++) {
    if (spins < 4096)
      pause_cpu();
    else
      sched_yield();  // more threads than cores: let them run
  }
  atomic_store(&team.taken, 0);
}

void ck_parallel(size_t count, size_t grain, size_t threads, ck_task task, const void *context) {
  if (!count) return;
  if (!grain) grain = 1;
  const size_t pieces = (count - 1) / grain + 1;
  size_t wanted = (threads < pieces ? threads : pieces);
  wanted = wanted ? wanted - 1 : 0;
  if (wanted > MOST_WORKERS) wanted = MOST_WORKERS;
  if (!wanted || in_task) {
    run_in_place(count, grain, task, context);
    return;
  }
  // Each other caller occupies a core: helpers that would have to share one with it only cost switches.
  const size_t others = atomic_fetch_add(&team.callers, 1);
  wanted = wanted > others ? wanted - others : 0;
  int free_team = 0;
  if (wanted && atomic_compare_exchange_strong(&team.taken, &free_team, 1))
    run_on_team(count, grain, wanted, task, context);
  else
    run_in_place(count, grain, task, context);
  atomic_fetch_sub(&team.callers, 1);
}

size_t ck_participant(void) { return participant; }

size_t ck_team_workers(void) { return atomic_load(&team.workers); }

const char *ck_team_kind(void) {
#if defined(CK_OPENMP)
  return "openmp";
#else
  return "pthread";
#endif
}

static _Thread_local struct {
  float *floats;
  size_t count;
} scratch[CK_SCRATCH_SLOTS];
static pthread_key_t scratch_key;

// Runs on the thread that ends, so its thread-local scratch is still there.
static void free_scratch(void *unused) {
  (void)unused;
  for (size_t slot = 0; slot < CK_SCRATCH_SLOTS; slot++) {
    free(scratch[slot].floats);
    scratch[slot].floats = 0, scratch[slot].count = 0;
  }
}

static void make_scratch_key(void) { pthread_key_create(&scratch_key, free_scratch); }

float *ck_scratch(size_t slot, size_t count) {
  if (scratch[slot].floats && scratch[slot].count >= count) return scratch[slot].floats;
  if (count > (SIZE_MAX - HUGE_PAGE) / sizeof(float)) return 0;
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, make_scratch_key);
  const size_t unit = count * sizeof(float) >= HUGE_PAGE ? HUGE_PAGE : 4096;
  const size_t bytes = (count * sizeof(float) + unit - 1) / unit * unit;
  void *fresh = 0;
  if (posix_memalign(&fresh, unit == HUGE_PAGE ? unit : 64, bytes ? bytes : unit)) return 0;
#if defined(MADV_HUGEPAGE)
  if (unit == HUGE_PAGE) madvise(fresh, bytes, MADV_HUGEPAGE);
#endif
  free(scratch[slot].floats);
  scratch[slot].floats = fresh;
  scratch[slot].count = (bytes ? bytes : unit) / sizeof(float);
  pthread_setspecific(scratch_key, &scratch);
  return scratch[slot].floats;
}

#if defined(__linux__)
static size_t affinity_threads(void) {
  for (int cpus = 1024; cpus <= 1 << 16; cpus *= 2) {
    cpu_set_t *set = CPU_ALLOC((size_t)cpus);
    if (!set) break;
    const size_t bytes = CPU_ALLOC_SIZE((size_t)cpus);
    const int failed = sched_getaffinity(0, bytes, set);
    const int count = failed ? 0 : CPU_COUNT_S(bytes, set);
    CPU_FREE(set);
    if (!failed) return (size_t)count;
  }
  return SIZE_MAX;
}

// Reads up to two numbers of a small file; a word such as "max" ends the numbers. Returns how many there were.
static int read_numbers(const char *directory, const char *name, long long *first, long long *second) {
  char path[4352];
  snprintf(path, sizeof path, "%s/%s", directory, name);
  FILE *file = fopen(path, "r");
  if (!file) return 0;
  const int found = fscanf(file, "%lld %lld", first, second);
  fclose(file);
  return found > 0 ? found : 0;
}

// The smallest quota from a group's directory up to its hierarchy's mount: a container may see only some of them.
static size_t quota_threads(const char *mount, const char *group, size_t least) {
  char directory[4224];
  snprintf(directory, sizeof directory, "%s%s", mount, group);
  for (;;) {
    long long quota = 0, period = 0, unused;
    int known = read_numbers(directory, "cpu.max", &quota, &period) == 2;
    if (!known)
      known = read_numbers(directory, "cpu.cfs_quota_us", &quota, &unused) &&
              read_numbers(directory, "cpu.cfs_period_us", &period, &unused);
    if (known && quota > 0 && period > 0 && (size_t)(quota / period) < least) least = (size_t)(quota / period);
    char *slash = strrchr(directory, '/');
    if (strlen(directory) <= strlen(mount) || !slash) return least;
    *slash = 0;
  }
}

// Lines of /proc/self/cgroup are hierarchy:controllers:path; version 2 has no controllers.
static size_t cgroup_threads(void) {
  size_t least = SIZE_MAX;
  FILE *file = fopen("/proc/self/cgroup", "r");
  if (!file) return least;
  char line[4160];
  while (fgets(line, sizeof line, file)) {
    line[strcspn(line, "\n")] = 0;
    char *controllers = strchr(line, ':'), *group = controllers ? strchr(controllers + 1, ':') : 0;
    if (!group) continue;
    *controllers++ = 0, *group++ = 0;
    if (!strcmp(group, "/")) *group = 0;
    char names[4168];
    snprintf(names, sizeof names, ",%s,", controllers);
    if (!*controllers) least = quota_threads("/sys/fs/cgroup", group, least);
    if (strstr(names, ",cpu,")) {
      least = quota_threads("/sys/fs/cgroup/cpu", group, least);
      least = quota_threads("/sys/fs/cgroup/cpu,cpuacct", group, least);
    }
  }
  fclose(file);
  return least;
}
#endif

size_t ck_allowed_threads(void) {
  const long online = sysconf(_SC_NPROCESSORS_ONLN);
  size_t threads = online > 0 ? (size_t)online : 1;
#if defined(__linux__)
  const size_t affinity = affinity_threads(), quota = cgroup_threads();
  if (affinity < threads) threads = affinity;
  if (quota < threads) threads = quota;
#endif
  return threads ? threads : 1;
}
