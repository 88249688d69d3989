// SPDX-License-Identifier: Apache-2.0
// Files of tokens in Megatron's indexed format: PREFIX.bin with the ids, PREFIX.idx with lengths
// and documents.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "tessera/base/atomic_file.hpp"
#include "tessera/base/mapped_file.hpp"
#include "tessera/data/tokenizer.hpp"

namespace tessera::data {

/// DeepSpeed numbers the unsigned types differently; code 6 is uint16 there and float64 in
/// Megatron.
enum class IndexFlavour { megatron, deepspeed };

/// A pair of files, mapped and checked: magic, version, sizes, offsets that follow from the
/// lengths, documents that ascend from 0 to the last sequence.
/// Errors: io naming the file and what is wrong.
class TokenFile {
 public:
  explicit TokenFile(const std::string& prefix, IndexFlavour flavour = IndexFlavour::megatron);
  /// True if PREFIX.bin and PREFIX.idx are both there.
  static bool present(const std::string& prefix);

  const std::string& prefix() const { return prefix_; }
  /// Of the ids on disk, in bytes.
  int item_size() const { return item_size_; }
  std::int64_t tokens() const { return sequence_begin_.back(); }
  std::int64_t sequences() const { return static_cast<std::int64_t>(sequence_begin_.size()) - 1; }
  std::int64_t documents() const { return static_cast<std::int64_t>(documents_.size()) - 1; }
  /// Sequence s is tokens [sequence_begin(s), sequence_begin(s + 1)) of the whole.
  std::int64_t sequence_begin(std::int64_t s) const {
    return sequence_begin_[static_cast<std::size_t>(s)];
  }
  /// Document d is tokens [document_begin(d), document_begin(d + 1)).
  std::int64_t document_begin(std::int64_t d) const {
    return sequence_begin(documents_[static_cast<std::size_t>(d)]);
  }
  /// Tokens [begin, begin + count) of the whole. Errors: io for an id that does not fit int32.
  void read(std::int64_t begin, std::int64_t count, Token* out) const;

 private:
  void parse_index(IndexFlavour flavour);

  std::string prefix_;
  MappedFile bin_;
  MappedFile idx_;
  int item_size_ = 2;
  bool is_signed_ = false;
  std::vector<std::int64_t> sequence_begin_;  // in tokens, one more than sequences
  std::vector<std::int64_t> documents_;       // in sequences, one more than documents
};

/// Writes such a pair: whole or absent. Ids are uint16 where `vocabulary_size` < 65500, else int32.
class TokenFileWriter {
 public:
  TokenFileWriter(const std::string& prefix, std::int64_t vocabulary_size);

  /// Bytes of one id on disk: 2 or 4.
  int item_size() const { return item_size_; }
  /// Adds ids in the format of the file to `ids`; may run on several threads at once.
  /// Errors: invalid_argument naming an id outside the vocabulary.
  void append_ids(std::span<const Token> tokens, std::vector<std::byte>& ids) const;
  /// One document of one sequence.
  void add_document(std::span<const Token> tokens);
  /// The same with ids from append_ids.
  void add_encoded(std::span<const std::byte> ids);
  std::int64_t tokens() const { return tokens_; }
  /// PREFIX.idx comes last: without it the pair does not count.
  void commit();

 private:
  std::int64_t vocabulary_size_;
  int item_size_;
  AtomicFile bin_;
  AtomicFile idx_;
  std::vector<std::int32_t> lengths_;
  std::int64_t tokens_ = 0;
};

}  // namespace tessera::data
