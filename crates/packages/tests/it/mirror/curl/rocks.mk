# Builds lua-curl 0.3.0 as a rock. Its own makefile asks pkg-config for Lua 5.1 and reads the header of an older curl.
CURL_H = $(CURL_INCDIR)/curl/curl.h
TABLES = curlopt.h curl_netrcopt.h curl_authopt.h curl_ftpauthopt.h curl_ftpmethods.h curl_form.h

all: curl.so

curl.so: lua-curl.c luabind.c luabind.h port.h $(TABLES)
	$(CC) $(CFLAGS) -w -Werror=implicit-function-declaration -I$(LUA_INCDIR) -I$(CURL_INCDIR) -include port.h $(LIBFLAG) -o $@ lua-curl.c luabind.c -L$(CURL_LIBDIR) -lcurl

curlopt.h:
	sed -n 's/^ *CURLOPT[DEPRCAT]*(CURLOPT_\([A-Z0-9_]*\),.*/{"OPT_\1", CURLOPT_\1},/p' $(CURL_H) > $@
curl_netrcopt.h:
	sed -n 's/^ *CURL_\(NETRC_[A-Z]*\),.*/{"\1", (int)CURL_\1},/p' $(CURL_H) > $@
curl_authopt.h:
	sed -n 's/^#define CURL\(AUTH_[A-Z]*\) .*/{"\1", CURL\1},/p' $(CURL_H) > $@
curl_ftpauthopt.h:
	sed -n 's/^ *CURL\(FTPAUTH_[A-Z]*\),.*/{"\1", CURL\1},/p' $(CURL_H) > $@
curl_ftpmethods.h:
	sed -n 's/^ *CURL\(FTPMETHOD_[A-Z]*\),.*/{"\1", CURL\1},/p' $(CURL_H) > $@
curl_form.h:
	sed -n '/CURLFORM_NOTHING/d; s/^ *CURL\(FORM_[A-Z]*\)[ ,].*/{"\1", CURL\1},/p' $(CURL_H) > $@

install: curl.so
	mkdir -p $(INST_LIBDIR)
	cp curl.so $(INST_LIBDIR)/curl.so
