// The functions of beacon_v1, as hostfuncs/ABI.md describes them. The compiler
// drops those that nothing reaches.

// @ts-ignore: decorator
@external("beacon_v1", "work_item") export declare function work_item(buf: usize, cap: usize, len: usize): u32;
// @ts-ignore: decorator
@external("beacon_v1", "settings") export declare function settings(buf: usize, cap: usize, len: usize): u32;
// @ts-ignore: decorator
@external("beacon_v1", "setting") export declare function setting(name: usize, nameLen: usize, buf: usize, cap: usize, len: usize): u32;
// @ts-ignore: decorator
@external("beacon_v1", "config") export declare function config(name: usize, nameLen: usize, buf: usize, cap: usize, len: usize): u32;
// @ts-ignore: decorator
@external("beacon_v1", "progress") export declare function progress(percent: f64, step: i32, total: i32, message: usize, len: usize): u32;
// @ts-ignore: decorator
@external("beacon_v1", "log") export declare function log(level: i32, text: usize, len: usize): u32;
// @ts-ignore: decorator
@external("beacon_v1", "output") export declare function output(name: usize, nameLen: usize, json: usize, len: usize): u32;
// @ts-ignore: decorator
@external("beacon_v1", "fail") export declare function fail(message: usize, len: usize): u32;
// @ts-ignore: decorator
@external("beacon_v1", "describe") export declare function describe(json: usize, len: usize): u32;
// @ts-ignore: decorator
@external("beacon_v1", "last_error") export declare function last_error(buf: usize, cap: usize, len: usize): u32;
// @ts-ignore: decorator
@external("beacon_v1", "remaining") export declare function remaining(milliseconds: usize): u32;
// @ts-ignore: decorator
@external("beacon_v1", "cancelled") export declare function cancelled(): u32;
// @ts-ignore: decorator
@external("beacon_v1", "now") export declare function now(clock: i32, nanoseconds: usize): u32;
// @ts-ignore: decorator
@external("beacon_v1", "random") export declare function random(buf: usize, len: usize): u32;
// @ts-ignore: decorator
@external("beacon_v1", "file_open") export declare function file_open(path: usize, len: usize, flags: u32, fd: usize): u32;
// @ts-ignore: decorator
@external("beacon_v1", "file_read") export declare function file_read(fd: u32, buf: usize, cap: usize, n: usize): u32;
// @ts-ignore: decorator
@external("beacon_v1", "file_write") export declare function file_write(fd: u32, data: usize, len: usize, n: usize): u32;
// @ts-ignore: decorator
@external("beacon_v1", "file_seek") export declare function file_seek(fd: u32, offset: i64, whence: i32, position: usize): u32;
// @ts-ignore: decorator
@external("beacon_v1", "file_size") export declare function file_size(fd: u32, size: usize): u32;
// @ts-ignore: decorator
@external("beacon_v1", "file_close") export declare function file_close(fd: u32): u32;
// @ts-ignore: decorator
@external("beacon_v1", "file_list") export declare function file_list(path: usize, pathLen: usize, buf: usize, cap: usize, len: usize): u32;
// @ts-ignore: decorator
@external("beacon_v1", "file_remove") export declare function file_remove(path: usize, len: usize): u32;
// @ts-ignore: decorator
@external("beacon_v1", "file_rename") export declare function file_rename(from: usize, fromLen: usize, to: usize, toLen: usize): u32;
// @ts-ignore: decorator
@external("beacon_v1", "file_make_directory") export declare function file_make_directory(path: usize, len: usize): u32;
// @ts-ignore: decorator
@external("beacon_v1", "handle_wait") export declare function handle_wait(handles: usize, len: usize, milliseconds: i64, index: usize): u32;
// @ts-ignore: decorator
@external("beacon_v1", "handle_close") export declare function handle_close(handle: u32): u32;
// @ts-ignore: decorator
@external("beacon_v1", "http_open") export declare function http_open(request: usize, len: usize, handle: usize): u32;
// @ts-ignore: decorator
@external("beacon_v1", "http_write") export declare function http_write(handle: u32, data: usize, len: usize, n: usize): u32;
// @ts-ignore: decorator
@external("beacon_v1", "http_wait") export declare function http_wait(handle: u32, status: usize): u32;
// @ts-ignore: decorator
@external("beacon_v1", "http_response") export declare function http_response(handle: u32, buf: usize, cap: usize, len: usize): u32;
// @ts-ignore: decorator
@external("beacon_v1", "http_header") export declare function http_header(handle: u32, name: usize, nameLen: usize, buf: usize, cap: usize, len: usize): u32;
// @ts-ignore: decorator
@external("beacon_v1", "http_read") export declare function http_read(handle: u32, buf: usize, cap: usize, n: usize): u32;
// @ts-ignore: decorator
@external("beacon_v1", "call_open") export declare function call_open(request: usize, len: usize, handle: usize): u32;
// @ts-ignore: decorator
@external("beacon_v1", "call_progress") export declare function call_progress(handle: u32, buf: usize, cap: usize, len: usize): u32;
// @ts-ignore: decorator
@external("beacon_v1", "call_wait") export declare function call_wait(handle: u32): u32;
// @ts-ignore: decorator
@external("beacon_v1", "call_result") export declare function call_result(handle: u32, buf: usize, cap: usize, len: usize): u32;
// @ts-ignore: decorator
@external("beacon_v1", "call_output") export declare function call_output(handle: u32, name: usize, nameLen: usize, buf: usize, cap: usize, len: usize): u32;
// @ts-ignore: decorator
@external("beacon_v1", "secret") export declare function secret(name: usize, len: usize): u32;
