// SPDX-License-Identifier: GPL-2.0
/* Only assertions: sizes and offsets in bindings.rs, as gcc sees them. */

#include "bindings.h"
#include "layout.h"
