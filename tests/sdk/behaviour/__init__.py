"""What handlers see and do, the same in memory, replayed at every await, under our server and under the official one."""
