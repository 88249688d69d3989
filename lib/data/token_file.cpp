// SPDX-License-Identifier: Apache-2.0
// Reading and writing Megatron's indexed format, version 1.
#include "tessera/data/token_file.hpp"

#include <bit>
#include <cstring>
#include <filesystem>
#include <limits>
#include <string_view>
#include <type_traits>

#include <fmt/format.h>

#include "tessera/base/error.hpp"

namespace tessera::data {
namespace {

static_assert(std::endian::native == std::endian::little, "the format is little endian");

constexpr std::string_view kMagic{"MMIDIDX\0\0", 9};
constexpr std::int64_t kHeaderBytes = 34;
constexpr std::int64_t kNarrowVocabulary = 65500;
constexpr std::uint8_t kInt32Code = 4;
constexpr std::uint8_t kUint16Code = 8;

template <typename T>
T load(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

bool is_file(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::is_regular_file(path, ignored);
}

struct ItemType {
  int size = 0;  // 0: not integers
  bool is_signed = false;
};

ItemType item_type(std::uint8_t code, IndexFlavour flavour) {
  switch (code) {
    case 1:
      return {1, false};
    case 2:
      return {1, true};
    case 3:
      return {2, true};
    case 4:
      return {4, true};
    case 5:
      return {8, true};
    case 6:
      return flavour == IndexFlavour::deepspeed ? ItemType{2, false} : ItemType{};
    case 7:
      return flavour == IndexFlavour::deepspeed ? ItemType{4, false} : ItemType{};
    case 8:
      return flavour == IndexFlavour::deepspeed ? ItemType{8, false} : ItemType{2, false};
    default:
      return {};
  }
}

template <typename T>
void widen(const std::byte* source, std::int64_t count, Token* out, const std::string& path) {
  bool fits = true;
  for (std::int64_t i = 0; i < count; ++i) {
    const T id = load<T>(source + static_cast<std::size_t>(i) * sizeof(T));
    if constexpr (std::is_signed_v<T>) fits &= id >= 0;
    if constexpr (sizeof(T) >= sizeof(Token))
      fits &= static_cast<std::uint64_t>(id) <=
              static_cast<std::uint64_t>(std::numeric_limits<Token>::max());
    out[i] = static_cast<Token>(id);
  }
  TESSERA_CHECK(fits, Code::io, fmt::format("{} has a token id outside [0, 2^31)", path));
}

}  // namespace

bool TokenFile::present(const std::string& prefix) {
  return is_file(prefix + ".bin") && is_file(prefix + ".idx");
}

TokenFile::TokenFile(const std::string& prefix, IndexFlavour flavour)
    : prefix_(prefix), bin_(prefix + ".bin"), idx_(prefix + ".idx") {
  parse_index(flavour);
}

void TokenFile::parse_index(IndexFlavour flavour) {
  const std::string& path = idx_.path();
  const std::byte* data = idx_.data();
  TESSERA_CHECK(idx_.size() >= kHeaderBytes && std::memcmp(data, kMagic.data(), kMagic.size()) == 0,
                Code::io, fmt::format("{} is not an index of tokens (MMIDIDX)", path));
  const auto version = load<std::uint64_t>(data + 9);
  TESSERA_CHECK(version == 1, Code::io,
                fmt::format("{} has version {}, expected 1", path, version));
  const auto code = load<std::uint8_t>(data + 17);
  const ItemType type = item_type(code, flavour);
  TESSERA_CHECK(
      type.size != 0, Code::io,
      fmt::format("{} has the type code {}, which is no integer type of its flavour", path, code));
  item_size_ = type.size;
  is_signed_ = type.is_signed;

  const auto sequences = load<std::uint64_t>(data + 18);
  const auto boundaries = load<std::uint64_t>(data + 26);
  const auto limit = static_cast<std::uint64_t>(idx_.size());
  TESSERA_CHECK(sequences <= limit / 12 && boundaries >= 1 && boundaries <= limit / 8, Code::io,
                fmt::format("{} says {} sequences and {} document boundaries, too many for its {} "
                            "bytes",
                            path, sequences, boundaries, limit));
  const std::uint64_t needed = kHeaderBytes + 12 * sequences + 8 * boundaries;
  // Multimodal files add one byte for each sequence.
  TESSERA_CHECK(limit == needed || limit == needed + sequences, Code::io,
                fmt::format("{} has {} bytes, but {} sequences and {} document boundaries need {}",
                            path, limit, sequences, boundaries, needed));

  const std::byte* lengths = data + kHeaderBytes;
  const std::byte* offsets = lengths + 4 * sequences;
  sequence_begin_.resize(sequences + 1);
  for (std::uint64_t s = 0; s < sequences; ++s) {
    const auto length = load<std::int32_t>(lengths + 4 * s);
    const auto offset = load<std::int64_t>(offsets + 8 * s);
    TESSERA_CHECK(length >= 0 && offset == sequence_begin_[s] * item_size_, Code::io,
                  fmt::format("{}: sequence {} of length {} begins at byte {}, expected {}", path,
                              s, length, offset, sequence_begin_[s] * item_size_));
    sequence_begin_[s + 1] = sequence_begin_[s] + length;
  }
  TESSERA_CHECK(bin_.size() == tokens() * item_size_, Code::io,
                fmt::format("{} has {} bytes, but its index names {} tokens of {} bytes",
                            bin_.path(), bin_.size(), tokens(), item_size_));

  const std::byte* documents = offsets + 8 * sequences;
  documents_.resize(boundaries);
  std::memcpy(documents_.data(), documents, 8 * boundaries);
  bool valid = documents_.front() == 0 && documents_.back() == static_cast<std::int64_t>(sequences);
  for (std::size_t d = 1; d < boundaries; ++d) valid &= documents_[d - 1] <= documents_[d];
  TESSERA_CHECK(valid, Code::io,
                fmt::format("{}: documents do not ascend from 0 to {} sequences", path, sequences));
}

void TokenFile::read(std::int64_t begin, std::int64_t count, Token* out) const {
  TESSERA_CHECK(begin >= 0 && count >= 0 && begin <= tokens() - count, Code::invalid_argument,
                fmt::format("tokens [{}, {} + {}) of {} with {} tokens", begin, begin, count,
                            prefix_, tokens()));
  if (count == 0) return;
  const std::byte* source = bin_.data() + begin * item_size_;
  switch (item_size_ * (is_signed_ ? -1 : 1)) {
    case 1:
      return widen<std::uint8_t>(source, count, out, bin_.path());
    case -1:
      return widen<std::int8_t>(source, count, out, bin_.path());
    case 2:
      return widen<std::uint16_t>(source, count, out, bin_.path());
    case -2:
      return widen<std::int16_t>(source, count, out, bin_.path());
    case 4:
      return widen<std::uint32_t>(source, count, out, bin_.path());
    case -4:
      return widen<std::int32_t>(source, count, out, bin_.path());
    case 8:
      return widen<std::uint64_t>(source, count, out, bin_.path());
    default:
      return widen<std::int64_t>(source, count, out, bin_.path());
  }
}

TokenFileWriter::TokenFileWriter(const std::string& prefix, std::int64_t vocabulary_size)
    : vocabulary_size_(vocabulary_size),
      item_size_(vocabulary_size < kNarrowVocabulary ? 2 : 4),
      bin_(prefix + ".bin"),
      idx_(prefix + ".idx") {}

void TokenFileWriter::append_ids(std::span<const Token> tokens, std::vector<std::byte>& ids) const {
  const std::size_t begin = ids.size();
  ids.resize(begin + tokens.size() * static_cast<std::size_t>(item_size_));
  std::byte* out = ids.data() + begin;
  for (const Token token : tokens) {
    TESSERA_CHECK(token >= 0 && token < vocabulary_size_, Code::invalid_argument,
                  fmt::format("token {} is outside the vocabulary of {}", token, vocabulary_size_));
    const auto narrow = static_cast<std::uint16_t>(token);
    if (item_size_ == 2)
      std::memcpy(out, &narrow, 2);
    else
      std::memcpy(out, &token, 4);
    out += item_size_;
  }
}

void TokenFileWriter::add_document(std::span<const Token> tokens) {
  std::vector<std::byte> ids;
  append_ids(tokens, ids);
  add_encoded(ids);
}

void TokenFileWriter::add_encoded(std::span<const std::byte> ids) {
  const auto length = static_cast<std::int64_t>(ids.size()) / item_size_;
  TESSERA_CHECK(length <= std::numeric_limits<std::int32_t>::max(), Code::not_supported,
                fmt::format("a document of {} tokens: the format's limit is {}", length,
                            std::numeric_limits<std::int32_t>::max()));
  bin_.write(ids.data(), ids.size());
  lengths_.push_back(static_cast<std::int32_t>(length));
  tokens_ += length;
}

void TokenFileWriter::commit() {
  const std::uint64_t version = 1;
  const std::uint8_t code = item_size_ == 2 ? kUint16Code : kInt32Code;
  const std::uint64_t sequences = lengths_.size();
  const std::uint64_t boundaries = sequences + 1;
  std::vector<std::int64_t> offsets(sequences);
  std::vector<std::int64_t> documents(boundaries);
  std::int64_t offset = 0;
  for (std::size_t s = 0; s < sequences; ++s) {
    offsets[s] = offset;
    offset += std::int64_t{lengths_[s]} * item_size_;
    documents[s + 1] = static_cast<std::int64_t>(s) + 1;
  }
  idx_.write(kMagic);
  idx_.write(&version, sizeof version);
  idx_.write(&code, sizeof code);
  idx_.write(&sequences, sizeof sequences);
  idx_.write(&boundaries, sizeof boundaries);
  idx_.write(lengths_.data(), lengths_.size() * sizeof(std::int32_t));
  idx_.write(offsets.data(), offsets.size() * sizeof(std::int64_t));
  idx_.write(documents.data(), documents.size() * sizeof(std::int64_t));
  bin_.commit();
  idx_.commit();
}

}  // namespace tessera::data
