#include "../body/body.h"
#define CK_ISA scalar
#include "../vec/vec_scalar.h"

#include "isa.h"
#define CK_ISA_VALUE CK_ISA_SCALAR
#include "table.h"
