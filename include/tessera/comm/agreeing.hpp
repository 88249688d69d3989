// SPDX-License-Identifier: Apache-2.0
// Body of agreeing(): an error on one rank becomes an error on all.
#pragma once

#include <exception>
#include <string>

#include "tessera/base/error.hpp"
#include "tessera/comm/communicator.hpp"

namespace tessera {

/// Runs `body` on every rank; if it throws on one, all throw the error of the first rank that
/// failed. Collective: over `group`, after `body`, which must not communicate where ranks may fail
/// alone.
template <typename Body>
void agreeing(Communicator& group, Body&& body) {
  std::string error;
  Code code = Code::internal;
  try {
    body();
  } catch (const Error& caught) {
    error = caught.what();
    code = caught.code();
  } catch (const std::exception& caught) {
    error = caught.what();
  }
  group.agree(error, code);
}

}  // namespace tessera
