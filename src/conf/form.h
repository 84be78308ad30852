/* form: what single values must look like: the checks that schema rows name. Pure. */
#pragma once
#include "conf/schema.h"

bool form_any(struct str value, char hint[CONF_HINT_BYTES]);
bool form_listen(struct str value, char hint[CONF_HINT_BYTES]);
bool form_mechanism(struct str value, char hint[CONF_HINT_BYTES]);
bool form_resolver(struct str value, char hint[CONF_HINT_BYTES]);
bool form_header(struct str value, char hint[CONF_HINT_BYTES]);
bool form_via(struct str value, char hint[CONF_HINT_BYTES]);
bool form_deliver(struct str value, char hint[CONF_HINT_BYTES]);
bool form_address(struct str value, char hint[CONF_HINT_BYTES]);
bool form_user(struct str value, char hint[CONF_HINT_BYTES]);
bool form_tls_min(struct str value, char hint[CONF_HINT_BYTES]);
bool form_log(struct str value, char hint[CONF_HINT_BYTES]);
bool form_recipients(struct str value, char hint[CONF_HINT_BYTES]);
bool form_log_format(struct str value, char hint[CONF_HINT_BYTES]);
bool form_auth(struct str value, char hint[CONF_HINT_BYTES]);
bool form_alias(struct str value, char hint[CONF_HINT_BYTES]);
bool form_domain(struct str value, char hint[CONF_HINT_BYTES]);
bool form_spn(struct str value, char hint[CONF_HINT_BYTES]);
bool form_principal(struct str value, char hint[CONF_HINT_BYTES]);
bool form_realm(struct str value, char hint[CONF_HINT_BYTES]);
bool form_netbios(struct str value, char hint[CONF_HINT_BYTES]);
bool form_ldap(struct str value, char hint[CONF_HINT_BYTES]);
bool form_base(struct str value, char hint[CONF_HINT_BYTES]);
bool form_attribute(struct str value, char hint[CONF_HINT_BYTES]);
bool form_match(struct str value, char hint[CONF_HINT_BYTES]);
bool form_right(struct str value, char hint[CONF_HINT_BYTES]);

/* Titles. */
bool form_server_title(struct str value, char hint[CONF_HINT_BYTES]);
bool form_domain_title(struct str value, char hint[CONF_HINT_BYTES]);

/* The mechanisms and the rights that exist, as they are written; each ends with NULL. */
extern const char *const form_mechanisms[];
extern const char *const form_rights[];
