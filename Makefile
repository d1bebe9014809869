# SPDX-License-Identifier: Apache-2.0
#
# Needs git, Go and make; `deps` installs the rest on Debian.

# What a bare Debian 12 lacks: a C compiler and libseccomp for runc, the node
# image's maker, the kernel's tools, and the clients that the tests drive.
PACKAGES := gcc libc6-dev libseccomp-dev pkg-config mmdebstrap nftables iproute2 conntrack \
            iptables procps openssl ca-certificates curl openssh-client azure-cli

.PHONY: deps
deps: ## install the Debian packages that Bastide needs
	@missing=$$(dpkg-query -W -f '$${Package} $${db:Status-Status}\n' $(PACKAGES) 2>/dev/null | \
	  awk -v want='$(PACKAGES)' '$$2=="installed"{have[$$1]=1} END{n=split(want,w," ");for(i=1;i<=n;i++)if(!(w[i] in have))printf "%s ",w[i]}'); \
	if [ -n "$$missing" ]; then \
	  echo "deps: installing $$missing"; export DEBIAN_FRONTEND=noninteractive; \
	  apt-get install -qq -y --no-install-recommends $$missing >/tmp/bastide-deps.log 2>&1 || \
	  { apt-get update -qq && apt-get install -qq -y --no-install-recommends $$missing >/tmp/bastide-deps.log 2>&1; } || \
	  { tail -20 /tmp/bastide-deps.log; exit 1; }; \
	fi
