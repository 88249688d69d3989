// SPDX-License-Identifier: Apache-2.0
// The safetensors format: strict reader, writer.
#include "tessera/checkpoint/safetensors.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <numeric>
#include <set>
#include <string_view>
#include <unordered_map>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "tessera/base/atomic_file.hpp"
#include "tessera/base/error.hpp"
#include "tessera/base/mapped_file.hpp"

#include "checkpoint/safetensors_layout.hpp"

namespace tessera::checkpoint {
namespace {

using Json = nlohmann::json;

static_assert(std::endian::native == std::endian::little, "the format is little endian");

constexpr std::int64_t kLargestHeader = 100'000'000;

struct StoredType {
  const char* name;
  int bits;
  DType dtype;
  bool held;  // we have a DType for it
};

constexpr StoredType kTypes[] = {
    {"F32", 32, DType::fp32, true},          {"BF16", 16, DType::bf16, true},
    {"F16", 16, DType::fp16, true},          {"F64", 64, DType::fp64, true},
    {"I32", 32, DType::int32, true},         {"I64", 64, DType::int64, true},
    {"U8", 8, DType::uint8, true},           {"BOOL", 8, DType::uint8, true},
    {"I8", 8, DType::uint8, false},          {"I16", 16, DType::uint8, false},
    {"U16", 16, DType::uint8, false},        {"U32", 32, DType::uint8, false},
    {"U64", 64, DType::uint8, false},        {"C64", 64, DType::uint8, false},
    {"F8_E5M2", 8, DType::uint8, false},     {"F8_E4M3", 8, DType::uint8, false},
    {"F8_E8M0", 8, DType::uint8, false},     {"F8_E4M3FNUZ", 8, DType::uint8, false},
    {"F8_E5M2FNUZ", 8, DType::uint8, false}, {"F4", 4, DType::uint8, false},
    {"F6_E2M3", 6, DType::uint8, false},     {"F6_E3M2", 6, DType::uint8, false},
};

const StoredType* find_type(std::string_view name) {
  for (const StoredType& type : kTypes)
    if (name == type.name) return &type;
  return nullptr;
}

const char* stored_name(DType dtype) {
  for (const StoredType& type : kTypes)
    if (type.held && type.dtype == dtype) return type.name;
  return "";
}

/// A Json text with duplicate keys noticed: nlohmann would keep the last of them in silence.
Json parse_header(std::string_view text, const std::string& path) {
  std::vector<std::set<std::string>> open;
  const auto watch = [&](int, Json::parse_event_t event, Json& value) {
    if (event == Json::parse_event_t::object_start) open.emplace_back();
    if (event == Json::parse_event_t::object_end) open.pop_back();
    if (event == Json::parse_event_t::key) {
      const auto& key = value.get_ref<const std::string&>();
      TESSERA_CHECK(open.back().insert(key).second, Code::io,
                    fmt::format("{}: the header has '{}' twice", path, key));
    }
    return true;
  };
  Json header;
  try {
    header = Json::parse(text, watch);
  } catch (const Json::exception& error) {
    fail(Code::io, fmt::format("{}: the header is not JSON: {}", path, error.what()));
  }
  TESSERA_CHECK(header.is_object(), Code::io,
                fmt::format("{}: the header is not a JSON object", path));
  return header;
}

/// A size from the header: an integer, not negative, within 63 bits.
std::int64_t size_value(const Json& value, const std::string& path, const std::string& name,
                        const char* key) {
  const bool fits = value.is_number_unsigned() &&
                    value.get<std::uint64_t>() <=
                        static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  TESSERA_CHECK(fits, Code::io,
                fmt::format("{}: tensor '{}': {} holds {}, expected an integer >= 0", path, name,
                            key, value.dump()));
  return value.get<std::int64_t>();
}

const Json& member(const Json& value, const std::string& path, const std::string& name,
                   const char* key, Json::value_t type) {
  const auto found = value.is_object() ? value.find(key) : value.end();
  TESSERA_CHECK(value.is_object() && found != value.end() && found->type() == type, Code::io,
                fmt::format("{}: tensor '{}' has no valid '{}'", path, name, key));
  return *found;
}

SafetensorsEntry parse_entry(const std::string& path, const std::string& name, const Json& value) {
  SafetensorsEntry entry;
  entry.name = name;
  entry.stored_type = member(value, path, name, "dtype", Json::value_t::string).get<std::string>();
  const StoredType* type = find_type(entry.stored_type);
  TESSERA_CHECK(
      type != nullptr, Code::io,
      fmt::format("{}: tensor '{}' has the unknown dtype '{}'", path, name, entry.stored_type));

  std::vector<std::int64_t> sizes;
  std::int64_t bits = type->bits;
  const Json& shape = member(value, path, name, "shape", Json::value_t::array);
  for (const Json& size : shape) sizes.push_back(size_value(size, path, name, "shape"));
  // A zero makes the tensor empty, however large the other sizes are.
  const bool empty = std::find(sizes.begin(), sizes.end(), 0) != sizes.end();
  for (const std::int64_t size : sizes)
    TESSERA_CHECK(
        empty || !__builtin_mul_overflow(bits, size, &bits), Code::io,
        fmt::format("{}: tensor '{}' has the impossible shape {}", path, name, shape.dump()));
  if (empty) bits = 0;
  try {
    entry.shape = Shape(sizes);
  } catch (const Error&) {
    fail(Code::io,
         fmt::format("{}: tensor '{}' has the impossible shape {}", path, name, shape.dump()));
  }

  const Json& offsets = member(value, path, name, "data_offsets", Json::value_t::array);
  TESSERA_CHECK(offsets.size() == 2, Code::io,
                fmt::format("{}: tensor '{}': data_offsets has {} entries, expected 2", path, name,
                            offsets.size()));
  entry.begin = size_value(offsets[0], path, name, "data_offsets");
  const std::int64_t end = size_value(offsets[1], path, name, "data_offsets");
  entry.bytes = end - entry.begin;
  TESSERA_CHECK(bits % 8 == 0 && entry.bytes == bits / 8, Code::io,
                fmt::format("{}: tensor '{}' of {} {} needs {} bytes, but its offsets [{}, {}] "
                            "hold {}",
                            path, name, entry.stored_type, shape.dump(), (bits + 7) / 8,
                            entry.begin, end, entry.bytes));
  return entry;
}

void check_tiling(const std::vector<SafetensorsEntry>& entries, std::int64_t data_bytes,
                  const std::string& path) {
  std::int64_t end = 0;
  for (const SafetensorsEntry& entry : entries) {
    TESSERA_CHECK(entry.begin == end, Code::io,
                  fmt::format("{}: tensor '{}' begins at byte {} of the data, expected {}: tensors "
                              "{}",
                              path, entry.name, entry.begin, end,
                              entry.begin < end ? "overlap" : "leave a hole"));
    end += entry.bytes;  // cannot overflow: each end was a 63-bit offset
  }
  TESSERA_CHECK(end == data_bytes, Code::io,
                fmt::format("{}: the tensors need {} bytes of data, the file has {}: it is {}",
                            path, end, data_bytes, end > data_bytes ? "truncated" : "too long"));
}

void copy_elements(const std::byte* source, DType stored, std::size_t count, DType target,
                   void* out) {
  const std::size_t width = size_of(stored);
  if (stored == target) {
    if (count > 0) std::memcpy(out, source, count * width);
    return;
  }
  // Offsets need not be aligned for the type, so elements go through an aligned block.
  alignas(64) std::byte block[16384];
  const std::size_t step = sizeof block / width;
  for (std::size_t done = 0; done < count; done += step) {
    const std::size_t part = std::min(step, count - done);
    std::memcpy(block, source + done * width, part * width);
    convert(block, stored, static_cast<std::byte*>(out) + done * size_of(target), target, part);
  }
}

}  // namespace

struct SafetensorsFile::Impl {
  MappedFile file;
  std::int64_t data_begin = 0;
  std::vector<SafetensorsEntry> entries;
  std::unordered_map<std::string, std::size_t> index;
  std::map<std::string, std::string> metadata;

  std::string_view header_text() {
    const std::string& path = file.path();
    TESSERA_CHECK(
        file.size() >= 8, Code::io,
        fmt::format("{}: {} bytes are too few for a safetensors file", path, file.size()));
    std::uint64_t length = 0;
    std::memcpy(&length, file.data(), 8);
    TESSERA_CHECK(length <= kLargestHeader, Code::io,
                  fmt::format("{}: header length {} is beyond the format's limit of {}: not a "
                              "safetensors file",
                              path, length, kLargestHeader));
    data_begin = 8 + static_cast<std::int64_t>(length);
    TESSERA_CHECK(data_begin <= file.size(), Code::io,
                  fmt::format("{}: the header needs {} bytes, the file has {}: it is truncated",
                              path, data_begin, file.size()));
    const auto* text = reinterpret_cast<const char*>(file.data() + 8);
    TESSERA_CHECK(
        length >= 2 && text[0] == '{', Code::io,
        fmt::format("{}: the header does not begin with '{{': not a safetensors file", path));
    return {text, length};
  }

  void read_metadata(const Json& value) {
    bool texts = value.is_object();
    for (auto item = value.begin(); texts && item != value.end(); ++item) {
      texts = item->is_string();
      if (texts) metadata[item.key()] = item->get<std::string>();
    }
    TESSERA_CHECK(texts, Code::io,
                  fmt::format("{}: __metadata__ is not an object of texts", file.path()));
  }

  void parse() {
    const Json header = parse_header(header_text(), file.path());
    for (auto item = header.begin(); item != header.end(); ++item) {
      if (item.key() == "__metadata__")
        read_metadata(*item);
      else
        entries.push_back(parse_entry(file.path(), item.key(), *item));
    }
    std::sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) {
      return std::pair(a.begin, a.begin + a.bytes) < std::pair(b.begin, b.begin + b.bytes);
    });
    check_tiling(entries, file.size() - data_begin, file.path());
    for (std::size_t i = 0; i < entries.size(); ++i) index[entries[i].name] = i;
  }
};

SafetensorsFile::SafetensorsFile(const std::string& path) : impl_(std::make_unique<Impl>()) {
  impl_->file = MappedFile(path);
  impl_->parse();
}
SafetensorsFile::SafetensorsFile(SafetensorsFile&&) noexcept = default;
SafetensorsFile& SafetensorsFile::operator=(SafetensorsFile&&) noexcept = default;
SafetensorsFile::~SafetensorsFile() = default;

const std::string& SafetensorsFile::path() const {
  return impl_->file.path();
}
const std::vector<SafetensorsEntry>& SafetensorsFile::entries() const {
  return impl_->entries;
}
const std::map<std::string, std::string>& SafetensorsFile::metadata() const {
  return impl_->metadata;
}
bool SafetensorsFile::contains(const std::string& name) const {
  return impl_->index.contains(name);
}

const SafetensorsEntry& SafetensorsFile::entry(const std::string& name) const {
  const auto found = impl_->index.find(name);
  TESSERA_CHECK(found != impl_->index.end(), Code::io,
                fmt::format("{} has no tensor '{}'", path(), name));
  return impl_->entries[found->second];
}

DType SafetensorsFile::dtype(const std::string& name) const {
  const std::string& stored = entry(name).stored_type;
  const StoredType* type = find_type(stored);
  TESSERA_CHECK(
      type != nullptr && type->held, Code::not_supported,
      fmt::format("{}: tensor '{}' has dtype {}, which cannot be read here", path(), name, stored));
  return type->dtype;
}

const std::byte* SafetensorsFile::data(const std::string& name) const {
  return impl_->file.data() + impl_->data_begin + entry(name).begin;
}

void SafetensorsFile::read(const std::string& name, DType target, void* out) const {
  read_range(name, 0, entry(name).shape.numel(), target, out);
}

void SafetensorsFile::read_range(const std::string& name, std::int64_t begin, std::int64_t count,
                                 DType target, void* out) const {
  const SafetensorsEntry& tensor = entry(name);
  TESSERA_CHECK(begin >= 0 && count >= 0 && begin <= tensor.shape.numel() - count,
                Code::invalid_argument,
                fmt::format("{}: elements [{}, {} + {}) of tensor '{}' with {} elements", path(),
                            begin, begin, count, name, tensor.shape.numel()));
  const DType stored = dtype(name);
  TESSERA_CHECK(stored == target || (is_floating(stored) && is_floating(target)), Code::io,
                fmt::format("{}: tensor '{}' holds {}, which does not convert to {}", path(), name,
                            tensor.stored_type, to_string(target)));
  const auto width = static_cast<std::int64_t>(size_of(stored));
  copy_elements(data(name) + begin * width, stored, static_cast<std::size_t>(count), target, out);
  // Who reads a large file once, part by part, should not need memory for all of it.
  impl_->file.release(impl_->data_begin + tensor.begin + begin * width, count * width);
}

SafetensorsLayout lay_out_safetensors(const std::string& path,
                                      std::span<const SafetensorsInput> tensors,
                                      const std::map<std::string, std::string>& metadata) {
  SafetensorsLayout layout;
  layout.order.resize(tensors.size());
  std::iota(layout.order.begin(), layout.order.end(), std::size_t{0});
  const auto key = [&](std::size_t i) {
    return std::pair(-static_cast<std::int64_t>(size_of(tensors[i].dtype)),
                     std::string_view(tensors[i].name));
  };
  std::sort(layout.order.begin(), layout.order.end(),
            [&](std::size_t a, std::size_t b) { return key(a) < key(b); });
  nlohmann::ordered_json header;
  header["__metadata__"] = {{"format", "pt"}};
  for (const auto& [name, value] : metadata) header["__metadata__"][name] = value;
  layout.offsets.resize(tensors.size());
  std::int64_t end = 0;
  for (const std::size_t i : layout.order) {
    const SafetensorsInput& tensor = tensors[i];
    TESSERA_CHECK(
        tensor.name != "__metadata__" && !header.contains(tensor.name), Code::invalid_argument,
        fmt::format("cannot write tensor '{}' to {}: the name is taken", tensor.name, path));
    const std::int64_t bytes =
        checked_multiply(tensor.shape.numel(), static_cast<std::int64_t>(size_of(tensor.dtype)));
    layout.offsets[i] = end;
    end = checked_add(end, bytes);
    header[tensor.name] = {{"dtype", stored_name(tensor.dtype)},
                           {"shape", tensor.shape.sizes()},
                           {"data_offsets", {layout.offsets[i], end}}};
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const std::uint64_t length = text.size();
  layout.head.assign(reinterpret_cast<const char*>(&length), sizeof length);
  layout.head += text;
  const auto data_begin = static_cast<std::int64_t>(layout.head.size());
  for (std::int64_t& offset : layout.offsets) offset += data_begin;
  layout.file_bytes = checked_add(data_begin, end);
  return layout;
}

void write_safetensors(const std::string& path, std::span<const SafetensorsInput> tensors,
                       const std::map<std::string, std::string>& metadata) {
  const SafetensorsLayout layout = lay_out_safetensors(path, tensors, metadata);
  AtomicFile file(path);
  file.write(layout.head);
  for (const std::size_t i : layout.order)
    file.write(tensors[i].data,
               static_cast<std::size_t>(tensors[i].shape.numel()) * size_of(tensors[i].dtype));
  file.commit();
}

}  // namespace tessera::checkpoint
