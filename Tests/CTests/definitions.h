// Declares what checks.inc names.
#ifndef DEFINITIONS_H
#define DEFINITIONS_H

#include "rows.h"

#define ROWS(kernel, fields) void define_##kernel(const row *r);
#define CHECK(name, function) void function(test *t);
#include "checks.inc"
#undef ROWS
#undef CHECK

#endif
