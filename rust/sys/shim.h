/* SPDX-License-Identifier: GPL-2.0 */
#ifndef SLUICE_SHIM_H
#define SLUICE_SHIM_H

void sluice_log(const char *text);

#endif
