// SPDX-License-Identifier: Apache-2.0
// Linked into programs of sanitizer builds: modules stay loaded until the process ends, so that the
// leak checker can name the frames of what MPI's components never free, and suppress them.

extern "C" int dlclose(void*) {
  return 0;
}
