// SPDX-License-Identifier: Apache-2.0
// Text to token ids and back.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tessera::data {

using Token = std::int32_t;

/// Immutable and safe to use from several threads at once.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  virtual std::vector<Token> encode(std::string_view text) const = 0;
  /// Special tokens give no text. Errors: invalid_argument naming an id outside the vocabulary.
  virtual std::string decode(std::span<const Token> tokens) const = 0;
  virtual std::int64_t vocabulary_size() const = 0;
  /// The token that follows each document.
  virtual Token end_of_text() const = 0;
  /// For people: "bytes".
  virtual std::string name() const = 0;
  /// Changes whenever encode() would give other ids: a key of token caches.
  virtual std::string fingerprint() const = 0;
};

/// Token i < 256 is byte i; 256 is end-of-text. Any bytes are valid text.
class ByteTokenizer : public Tokenizer {
 public:
  static constexpr Token kEndOfText = 256;

  std::vector<Token> encode(std::string_view text) const override;
  std::string decode(std::span<const Token> tokens) const override;
  std::int64_t vocabulary_size() const override { return 257; }
  Token end_of_text() const override { return kEndOfText; }
  std::string name() const override { return "bytes"; }
  std::string fingerprint() const override { return "bytes-1"; }
};

/// `spec` as in the run file: "bytes". Errors: not_supported for files and folders (not available
/// yet), invalid_config for other words.
std::unique_ptr<Tokenizer> make_tokenizer(const std::string& spec);

}  // namespace tessera::data
