// CKernels: compute kernels in C with run-time instruction-set choice. Umbrella header, usable from plain C.
#ifndef CKERNELS_H
#define CKERNELS_H

#include "ck_types.h"
#include "ck_cpu.h"
#include "ck_kernels.h"
#include "ck_drive.h"
#include "ck_parallel.h"

#endif
