// Every kernel of the registry, and every driver, against naive loops in double, on every instruction set this machine runs.
//   CTests [--no-guards] [--expect ISA] [NAME...]
// --expect ISA checks that set alone, and fails unless it is the one in use. --no-guards keeps operands a vector away from guard
// pages, for emulators whose masked loads touch what they mask. NAMEs keep the checks whose name contains one of them.
// QUERN_MAX_ISA leaves out the instruction sets above it. Exits with 0 where everything passed, and with 1 otherwise.
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "definitions.h"

typedef struct check {
  const char *name;
  void (*run)(test *t);
} check;

#define ROWS(kernel, fields) \
  static void run_##kernel(test *t) { check_rows(t, fields, t->table->kernel, define_##kernel); }
#define CHECK(name, function)
#include "checks.inc"
#undef ROWS
#undef CHECK

static const check checks[] = {
#define ROWS(kernel, fields) {#kernel, run_##kernel},
#define CHECK(name, function) {#name, function},
#include "checks.inc"
#undef ROWS
#undef CHECK
};

static size_t kernels_without_a_check(void) {
  size_t missing = 0;
  for (size_t k = 0; k < ck_kernel_count(); k++) {
    size_t c = 0;
    while (c < COUNT(checks) && strcmp(checks[c].name, ck_kernel_name(k))) c++;
    if (c < COUNT(checks)) continue;
    printf("%s has no check: give it a line in Tests/CTests/checks.inc\n", ck_kernel_name(k));
    missing++;
  }
  return missing;
}

static int wanted(const char *name, int count, char **names) {
  for (int k = 0; k < count; k++)
    if (strstr(name, names[k])) return 1;
  return count == 0;
}

static double seconds(void) {
  struct timespec now;
  timespec_get(&now, TIME_UTC);
  return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static size_t run_checks(const ck_kernels *table, int count, char **names) {
  size_t ran = 0, failed = 0;
  const double start = seconds();
  for (size_t c = 0; c < COUNT(checks); c++) {
    if (!wanted(checks[c].name, count, names)) continue;
    test t = {.table = table, .name = checks[c].name, .random = 1};
    checks[c].run(&t);
    situation(&t, AT_END, "done");
    ran++, failed += t.failures != 0;
    if (t.failures) printf("%s %s: %zu failures\n", ck_isa_name(table->isa), t.name, t.failures);
  }
  printf("%s %s: %zu checks, %zu failed, %.1f s\n", ck_isa_name(table->isa), failed ? "failed" : "ok", ran, failed,
         seconds() - start);
  fflush(stdout);
  return failed;
}

int main(int count, char **arguments) {
  const ck_kernels *best = ck_kernels_best();
  size_t failures = kernels_without_a_check();
  int first = 0;
  report_faults();
  for (count--, arguments++; count && !strncmp(*arguments, "--", 2); count--, arguments++) {
    if (!strcmp(*arguments, "--no-guards")) {
      keep_from_guards();
    } else if (count > 1 && !strcmp(*arguments, "--expect")) {
      count--, arguments++;
      first = (int)best->isa;
      if (ck_isa_parse(*arguments) == first) continue;
      printf("expected %s, but %s was chosen\n", *arguments, ck_isa_name(best->isa));
      failures++;
    } else {
      fprintf(stderr, "CTests: no option %s\n", *arguments);
      return 2;
    }
  }
  for (int isa = first; isa <= (int)best->isa; isa++) {
    const ck_kernels *table = ck_kernels_for((ck_isa)isa);
    if (table) failures += run_checks(table, count, arguments);
  }
  printf("in use: %s\n", ck_isa_name(best->isa));
  return failures != 0;
}
