/* lex: the words and signs of one file. */
#pragma once
#include "base/arena.h"
#include "conf/mistake.h"

enum conf_token_kind {
    TOKEN_END, TOKEN_WORD, TOKEN_STRING, TOKEN_ASSIGN, TOKEN_APPEND, TOKEN_OPEN, TOKEN_CLOSE, TOKEN_COMMA,
    TOKEN_PAREN_OPEN, TOKEN_PAREN_CLOSE,
    TOKEN_BAD, /* a syntax error that has been noted */
};

struct conf_token {
    enum conf_token_kind kind;
    struct str text;         /* of a word or a string; a NUL stands behind it */
    struct conf_place place;
};

struct conf_lexer {
    struct str rest;
    const char *file;
    unsigned line;
    struct arena *arena;
    struct conf_mistakes *mistakes;
};

/* Checks the whole text first: UTF-8 without control characters. False: noted. */
bool conf_lexer_init(struct conf_lexer *l, struct arena *arena, struct conf_mistakes *mistakes, const char *file,
                     struct str text);
struct conf_token conf_lexer_next(struct conf_lexer *l);
/* How a token is named in a message: `"{"`, `the word listen`, `the end of the file`. */
const char *conf_token_text(struct arena *arena, const struct conf_token *token);
