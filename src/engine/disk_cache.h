// DiskCache: whole pages of the KV cache in files, found again by later runs of the program.
//
// A page's key is a hash chain: of what the rows depend on (the fingerprint: model, types, device,
// program), of the scope, and of all tokens up to the page's end. Its file is named by the key and
// holds the key, the tokens, how the rows were made, the rows of all blocks, and a checksum; all of
// it is compared before rows are used, so a file that is damaged, cut off or not ours is never more
// than a miss (said once). Files are written under a temporary name and renamed. Their bytes are
// limited: those used longest ago are removed first (by the files' times, which other processes
// that share the folder see too).
//
//   u64 magic   u64[2] key   u64[2] key of the page before   u64 bytes of rows   u64 checksum of
//   all else   i32 exact   i32 drafted   i32[64] tokens   rows: blocks and MTP modules in order, 64
//   rows of a page each
#pragma once
#include <array>
#include <cstdint>
#include <list>
#include <map>
#include <optional>
#include <span>
#include <string>

#include "model/kv_cache.h"
#include "model/model.h"

namespace wels {

class DiskCache {
 public:
  static constexpr int kPageRows = KvCache::kPageRows;
  using Key = std::array<uint64_t, 2>;

  // Throws Error where the folder can't be made, read or written to. limit_bytes: of all files.
  DiskCache(std::string folder, int64_t limit_bytes, Key fingerprint);

  Key root(const std::string& scope) const;
  // The page behind `before` with these kPageRows tokens.
  static Key next(const Key& before, std::span<const int32_t> tokens);

  // How many rows of a page from the beginning are exact, and seen by the MTP module
  // (prefix_cache.h).
  struct Rows {
    int32_t exact = 0, drafted = 0;
  };
  // Whether a file of that name was there when last looked at.
  bool has(const Key& key) const { return files_.contains(key); }
  // Fills page `page` of kv; nothing where there is no such file or it is no good.
  std::optional<Rows> load(const Key& key, const Key& before, std::span<const int32_t> tokens,
                           KvCache& kv, int32_t page);
  // Writes a page, unless it is there already as good. A disk that is full, say, ends saving (said
  // once).
  void save(const Key& key, const Key& before, std::span<const int32_t> tokens, const Rows& rows,
            const KvCache& kv, int32_t page);

  int64_t bytes() const { return bytes_; }

 private:
  struct File {
    int64_t bytes;
    int32_t drafted;                 // rows; -1: nobody has looked into the file yet
    std::list<Key>::iterator place;  // in the order of use
  };
  std::string path(const Key& key) const;
  void look();
  void use(const Key& key);
  void forget(const Key& key);
  void make_room(int64_t bytes);
  void complain(const std::string& what);

  std::string folder_;
  int64_t limit_, bytes_ = 0;
  Key fingerprint_;
  std::map<Key, File> files_;
  std::list<Key> order_;  // the longest unused first
  bool saving_ = true, complained_ = false;
};

// What cached rows depend on: config, values of the weights (names, types, shapes and a sample of
// their bytes: 64 places of every matrix, so a model trained further is another one, but
// one altered by hand in a single value may not be), the device, T, the cache's type and width and
// the program's version.
DiskCache::Key model_fingerprint(const Device& dev, Model& model, DType dtype, const KvCache& kv);

}  // namespace wels
