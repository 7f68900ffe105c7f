// Declares what checks.inc names.
#ifndef DEFINITIONS_H
#define DEFINITIONS_H

#include "rows.h"

#define ROWS(kernel, fields) void define_##kernel(const row *r);
#define CHECK(name, function) void function(test *t);
#include "checks.inc"
#undef ROWS
#undef CHECK

// A reduction of x[n], and how far from it a kernel may be.
double reduced(ck_reduction kind, const double *x, size_t n, double *error);

#endif
