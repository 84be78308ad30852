/* The parts of the catalogue, each in ascending order of its numbers. Only for catalog.c. */
#pragma once
#include "explain/catalog.h"

/* Where the causes stand. */
#define REJECT "auth.reject/"
#define ACCEPT "auth.accept/"
#define OUTBOUND "delivery.login.failed/"

struct catalog_rows {
    const struct catalog_entry *row;
    size_t n;
};
extern const struct catalog_rows catalog_events, catalog_logins, catalog_kerberos, catalog_ntlm, catalog_identity,
    catalog_outbound;
