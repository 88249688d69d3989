// SPDX-License-Identifier: Apache-2.0
// The byte tokenizer, and choosing one by its name.
#include "tessera/data/tokenizer.hpp"

#include <filesystem>

#include <fmt/format.h>

#include "tessera/base/error.hpp"

namespace tessera::data {

std::vector<Token> ByteTokenizer::encode(std::string_view text) const {
  std::vector<Token> tokens(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) tokens[i] = static_cast<unsigned char>(text[i]);
  return tokens;
}

std::string ByteTokenizer::decode(std::span<const Token> tokens) const {
  std::string text;
  text.reserve(tokens.size());
  for (const Token token : tokens) {
    TESSERA_CHECK(
        token >= 0 && token <= kEndOfText, Code::invalid_argument,
        fmt::format("token {} is outside the vocabulary of {}", token, vocabulary_size()));
    if (token != kEndOfText) text += static_cast<char>(token);
  }
  return text;
}

std::unique_ptr<Tokenizer> make_tokenizer(const std::string& spec) {
  if (spec == "bytes") return std::make_unique<ByteTokenizer>();
  std::error_code ignored;
  TESSERA_CHECK(!std::filesystem::exists(spec, ignored), Code::not_supported,
                fmt::format("tokenizer '{}': tokenizer files and folders are not available yet; "
                            "use 'bytes'",
                            spec));
  fail(Code::invalid_config,
       fmt::format("tokenizer '{}' is neither 'bytes' nor a file or folder that exists", spec));
}

}  // namespace tessera::data
