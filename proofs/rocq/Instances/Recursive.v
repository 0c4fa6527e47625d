(** * Instance: a machine that hosts itself, to any depth

    The paper's machine with one more instruction, ASSIST, privileged: it does what the control program
    does between a trap and the guest's next step.  The control program is then a program of one
    instruction, in location 3, so that the machine runs it step by step, and so does a virtual machine.

    What ASSIST interprets may be an ASSIST of the guest's, whose guest is smaller; the recursion ends
    because each level has four locations less. *)

From Coq Require Import List Arith Lia.
Require Import Popek.Machine Popek.ThirdGeneration Popek.Classes Popek.Map.
Require Import Popek.Premises Popek.Monitor Popek.Runs Popek.Theorem1 Popek.Theorem2.
Require Import Popek.Instances.PaperMachine.
Import ListNotations.

(* The words of all machines here are cells. *)
Ltac arith := cbn [word paper_machine pg] in *; lia.

Inductive op2 : Type :=
| Plain (i : op)
| ASSIST.

Definition op2_of (c : cell) : op2 :=
  match c with Word _ 10 _ _ => ASSIST | _ => Plain (op_of c) end.

(** The control program for a guest with w locations: the entry's PSW, and the program. *)
Definition part (w : nat) : control cell :=
  Control (Word supervisor 3 0 (4 + w)) [Word user 10 0 0] [].

Definition run_op2 (assist : storage_state cell -> storage_state cell) (i : op2) (S : storage_state cell)
    : ending cell :=
  match i with
  | Plain i => run_op (fun _ => true) i S
  | ASSIST =>
      match M S with
      | user => Traps other_trap
      | supervisor => if 4 <? length (E S) then Completes (assist S) else Traps memory_trap
      end
  end.

Definition step_with (assist : storage_state cell -> storage_state cell) (S : storage_state cell)
    : storage_state cell :=
  match nth_error (view (R S) (E S)) (P S) with
  | None => exchange paper_machine S
  | Some c => match run_op2 assist (op2_of c) S with
              | Completes T => T
              | Traps _ => exchange paper_machine S
              end
  end.

Fixpoint assist (fuel : nat) (S : storage_state cell) : storage_state cell :=
  match fuel with
  | 0 => S
  | Datatypes.S fuel =>
      let p := part (length (E S) - 4) in
      f paper_machine (step_with (assist fuel) (recover_guest paper_machine p S)) p
  end.

Lemma recover_length w S : length (E S) = 4 + w -> length (E (recover_guest paper_machine (part w) S)) = w.
Proof.
  intros Len. cbn [recover_guest E part behind length]. change (k (part w)) with 4.
  rewrite firstn_length, skipn_length, Len. lia.
Qed.

Lemma step_with_length a S :
  (forall S, 4 < length (E S) -> length (E (a S)) = length (E S)) -> length (E (step_with a S)) = length (E S).
Proof.
  intros H. unfold step_with. destruct (nth_error _ _); [| apply (exchange_length paper_machine)].
  destruct (run_op2 a (op2_of c) S) eqn:X; [| apply (exchange_length paper_machine)].
  destruct (op2_of c); cbn [run_op2] in X; [now apply run_op_size in X |].
  destruct (M S); [| discriminate X].
  destruct (Nat.ltb_spec 4 (length (E S))) as [L | L]; [| discriminate X]. inversion X. subst. now apply H.
Qed.

Lemma assist_length fuel : forall S, 4 < length (E S) -> length (E (assist fuel S)) = length (E S).
Proof.
  induction fuel as [| n IH]; intros S L; [reflexivity |]. cbn [assist].
  eapply eq_trans; [exact (f_length paper_machine _ _) |].
  cbn [word paper_machine pg]. rewrite step_with_length by exact IH.
  rewrite recover_length by arith. change (k (part (length (E S) - 4))) with 4. cbn [part behind length]. lia.
Qed.

(** Any fuel that the size of storage allows for is enough. *)
Lemma fuel_enough n : forall k S, 4 < length (E S) -> length (E S) <= n -> length (E S) <= k ->
  assist n S = assist k S.
Proof.
  induction n as [| n IH]; intros [| k] S L Hn Hk; try arith. cbn [assist]. f_equal.
  assert (forall G : storage_state cell, length (E G) = length (E S) - 4 ->
            step_with (assist n) G = step_with (assist k) G) as Same.
  { intros G LenG. unfold step_with. destruct (nth_error _ _); [| reflexivity].
    destruct (op2_of c); cbn [run_op2]; [reflexivity |]. destruct (M G); [| reflexivity].
    destruct (Nat.ltb_spec 4 (length (E G))) as [LG | LG]; [| reflexivity].
    now rewrite (IH k G) by arith. }
  apply Same, recover_length. arith.
Qed.

Definition execute2 (i : op2) (S : storage_state cell) : ending cell := run_op2 (assist (length (E S))) i S.

Lemma execute2_size i S T : execute2 i S = Completes T -> length (E T) = length (E S).
Proof.
  destruct i; cbn [execute2 run_op2]; [apply run_op_size |].
  destruct (M S); [| discriminate].
  destruct (Nat.ltb_spec 4 (length (E S))) as [L | L]; [| discriminate].
  intros X. inversion X. now apply assist_length.
Qed.

Definition recursive : third_generation := {|
  word := cell; word_dec := cell_dec; blank := Word supervisor 0 0 0;
  of_psw := cell_of; to_psw := psw_in; to_of := psw_in_cell_of;
  opcode := op2; decode := op2_of; execute := execute2; keeps_size := execute2_size
|}.

Ltac arith' := cbn [word paper_machine pg recursive] in *; lia.

Notation machine := (machine_of recursive).

(** ** It satisfies Theorem 1. *)

Lemma assist_privileged : privileged recursive ASSIST.
Proof.
  split.
  - intros S T U X. cbn [execute recursive execute2 run_op2] in X. cbn [word recursive] in *.
    rewrite U in X. discriminate X.
  - exists (St (repeat (Word supervisor 0 0 0) 5) supervisor 0 (Rel 0 0)). eexists. split; reflexivity.
Qed.

Lemma recursive_sensitive_is_privileged i : sensitive recursive i -> privileged recursive i.
Proof.
  destruct i as [i |]; [exact (sensitive_is_privileged i) | intros _; exact assist_privileged].
Qed.

Lemma recursive_R : references_relocated recursive.
Proof.
  intros [i |] S T S' U X; [exact (pg_R (fun _ => true) i S T S' U X) |].
  now apply assist_privileged in X.
Qed.

Lemma recursive_T : traps_in_user_too recursive.
Proof.
  intros [i |] S T S' U X; [exact (pg_T (fun _ => true) i S T S' U X) |].
  now apply assist_privileged in X.
Qed.

Lemma recursive_K : confined recursive.
Proof.
  intros [i |] S T NP X; [exact (all_confined (fun _ => true) i S T X) |].
  now elim NP; apply assist_privileged.
Qed.

Theorem recursive_hosts : virtual_machine_monitor recursive.
Proof.
  apply theorem_1;
    [exact recursive_sensitive_is_privileged | exact recursive_R | exact recursive_T | exact recursive_K].
Qed.

(** ** The control program is coded. *)

Definition phi (w : nat) (S : state machine) : state machine := f recursive S (part w).

Lemma step_is (G : storage_state cell) n : length (E G) <= n ->
  step machine (G : state machine) = step_with (assist n) G.
Proof.
  intros Hn. unfold step, step_with.
  change (fetch machine G) with
    (match nth_error (view (R G) (E G)) (P G) with
     | Some x => inr (op2_of x)
     | None => inl memory_trap
     end : trap_cause + op2).
  destruct (nth_error (view (R G) (E G)) (P G)) as [c |]; [| reflexivity].
  destruct (op2_of c) as [i |].
  - cbn [run_op2]. cbn [perform machine_of recursive execute execute2 run_op2].
    now destruct (run_op (fun _ => true) i G).
  - cbn [run_op2]. cbn [perform machine_of recursive execute execute2 run_op2].
    cbn [word recursive]. destruct (M G); [| reflexivity].
    destruct (Nat.ltb_spec 4 (length (E G))) as [L | L]; [| reflexivity].
    apply fuel_enough; arith'.
Qed.

Lemma phi_length w (S : state machine) : length (E (phi w S)) = 4 + length (E S).
Proof. exact (eq_trans (f_length recursive S (part w)) (Nat.add_0_r (4 + length (E S)))). Qed.

Lemma assist_at_entry (h S : storage_state cell) w :
  nth_error (view (R h) (E h)) (P h) = Some (Word user 10 0 0) -> M h = supervisor ->
  length (E h) = 4 + w -> 0 < w -> recover_guest paper_machine (part w) h = S ->
  step_with (assist (Datatypes.S (3 + w))) h = f paper_machine (step_with (assist (3 + w)) S) (part w).
Proof.
  intros Here Mode Len Pos <-. unfold step_with at 1. rewrite Here. cbn [op2_of run_op2]. rewrite Mode.
  destruct (Nat.ltb_spec 4 (length (E h))) as [_ | L]; [| lia].
  change (assist (Datatypes.S (3 + w)) h) with
    (let p := part (length (E h) - 4) in
     f paper_machine (step_with (assist (3 + w)) (recover_guest paper_machine p h)) p).
  cbv zeta. now replace (length (E h) - 4) with w by lia.
Qed.

Lemma program_interprets (S : state machine) w : length (E S) = w -> 0 < w ->
  step machine (exchange recursive (phi w S)) = phi w (step machine S).
Proof.
  intros Len Pos.
  assert (length (E (exchange recursive (phi w S))) = 4 + w) as LenH
    by (rewrite <- Len; exact (eq_trans (exchange_length recursive (phi w S)) (phi_length w S))).
  eapply eq_trans; [apply (step_is _ (Datatypes.S (3 + w))); arith' |].
  eapply eq_trans; [apply (assist_at_entry _ S w); [easy | easy | exact LenH | exact Pos |] |].
  - exact (recover_after_trap recursive S (part w)).
  - unfold phi. rewrite (step_is S (3 + w)) by arith'. reflexivity.
Qed.

(** ** A map at every level. *)

Definition guests (w : nat) (S : state machine) : Prop := length (E S) = w.

Definition program_intact (w : nat) (h : state machine) : Prop :=
  kept recursive (part w) h = (entry (part w), rest (part w), behind (part w)).

Lemma recursive_A1 : A1_fidelity machine (paper recursive).
Proof.
  apply classes_imply_A1;
    [exact recursive_sensitive_is_privileged | exact recursive_R | exact recursive_T | exact recursive_K].
Qed.

(** At every moment the machine holds a guest, in place or just trapped. *)
Lemma every_moment w S h : 0 < w -> guests w S ->
  exists G, guests w G /\ (run machine h (phi w S) = phi w G \/ run machine h (phi w S) = exchange recursive (phi w G)).
Proof.
  intros Pos Len. induction h as [| h (G & LenG & [At | At])]; [now exists S; auto | |]; cbn [run]; rewrite At.
  - destruct (completes_or_stops machine (phi w G)) as [(T & C) | (c & T & C)].
    + exists (step machine G). split; [unfold guests; now rewrite step_length |]. left.
      rewrite (step_completes _ _ _ C).
      now apply (fidelity_commutes machine (paper recursive) (all_direct _) (part w) (paper_A2 _) recursive_A1 G T).
    + exists G. split; [easy |]. right. rewrite (step_stops _ _ _ _ C). apply stops_in in C. now subst T.
  - exists (step machine G). split; [unfold guests; now rewrite step_length |]. left. now apply program_interprets.
Qed.

Theorem one_level w : 0 < w -> is_map machine eq (guests w) (guests (4 + w)) (program_intact w) (phi w).
Proof.
  intros Pos.
  apply (map_from_premises machine eq (paper recursive) (part w) (guests w)).
  - apply paper_A2.
  - exact recursive_A1.
  - intros S c T Len _ C. exists 1. apply stops_in in C. subst T. now apply program_interprets.
  - reflexivity.
  - intros S Len. unfold guests. now rewrite step_length.
  - intros S Len. unfold guests. rewrite <- Len. apply phi_length.
  - intros S S' _ _. apply f_one_one.
  - now intros S S' _ _ ->.
  - intros S _ _. apply clockless.
  - intros S Len _ h.
    change (run machine h (image (paper recursive) S (part w))) with (run machine h (phi w S)).
    destruct (every_moment w S h Pos Len) as (G & _ & [-> | ->]);
      [apply kept_f | apply kept_exchange].
Qed.

(** Theorem 2 with nothing left open: a guest of w locations, under d + 1 control programs, one above the
    other, all on the same machine. *)
Theorem recursive_to_any_depth w d : 0 < w ->
  is_map machine eq (guests w) (guests (4 * (d + 1) + w)) (program_intact (4 * d + w))
    (nest machine (fun j => phi (4 * j + w)) (d + 1)).
Proof.
  intros Pos. replace (d + 1) with (Datatypes.S d) by arith'.
  apply (theorem_2 machine eq (fun j => guests (4 * j + w)) (fun j => program_intact (4 * j + w))
           (fun j => phi (4 * j + w))).
  intros j. replace (4 * Datatypes.S j + w) with (4 + (4 * j + w)) by arith'. apply one_level. lia.
Qed.

(** ** The same from the premises, as another machine is asked them

    The technique of the paper, for guests whose control program is [part]. *)
Definition nested : technique machine := {|
  private := control cell;
  notes := (mode * relocation)%type;
  image := f recursive : state machine -> control cell -> state machine;
  note := fun S => (M S, R S);
  ok := fun (S : state machine) p => 0 < length (E S) /\ p = part (length (E S));
  deprivileged := fun h : state machine => M h = user;
  owned_part := cell * list cell * list cell;
  owned := fun p (h : state machine) => kept recursive p h;
  vector_part := cell;
  vector := fun h : state machine => nth 1 (E h) (blank recursive);
  entry_of := entry;
  enter := fun _ (h : state machine) => exchange recursive h : state machine;
  recover := fun _ p _ (h : state machine) => recover_guest recursive p h : state machine;
  virtual_user := fun n => is_user (fst n)
|}.

Definition same_part (w j : nat) (n : notes nested) : private nested := part (4 * j + w).
Definition fits_in (h : state machine) (q : private nested) : Prop := q = part (length (E h)).

Lemma part_tells a b : part a = part b -> a = b.
Proof. unfold part. intros H. now injection H. Qed.

Theorem recursive_by_theorem_2 w d : 0 < w ->
  is_map machine eq (hosted machine nested (same_part w) 0) (hosted machine nested (same_part w) (Datatypes.S d))
    (fun _ => True) (nest machine (embed machine nested (same_part w)) (Datatypes.S d)).
Proof.
  intros Pos.
  assert (forall (S : state machine) p, ok nested S p -> ok (paper recursive) S p) as Ok by now intros S p [_ ->].
  apply theorem_2_from_premises with (fits := fits_in); try (intros S S' p O <-; easy).
  - exact RelationClasses.eq_equivalence.
  - split.
    + intros i S p T [L ->] X. cbn [perform machine_of] in X.
      destruct (execute recursive i S) as [U |] eqn:Done; [| discriminate X]. injection X as <-.
      apply keeps_size in Done. cbn [ok nested]. cbn [word recursive] in *. now rewrite Done.
    + intros S p c T [L ->] X. apply stops_in in X. subst T. cbn [ok nested deliver machine_of].
      rewrite exchange_length. now split.
  - intros i S S' p T _ <- X. now exists T.
  - intros S S' p c c' T T' _ <- X X'. apply stops_in in X, X'. now subst.
  - intros S S' p i _ <- F. exact F.
  - intros i S p T O D X. exact (recursive_A1 i S p T (Ok S p O) D X).
  - intros S p i O X. exact (paper_A2 recursive S p i (Ok S p O) X).
  - intros S S' p _ _ _. apply (f_one_one recursive).
  - intros S p q [L ->] ->. cbn [ok nested]. split; [| reflexivity].
    cbn [image nested]. rewrite f_length. arith'.
  - intros j _ S n O. exact O.
  - intros j _. repeat split.
    + intros S S' _ _ Eq. apply (f_one_one recursive) in Eq. now subst.
    + intros S c T [L Eq] C. exists 1. apply stops_in in C. subst T. apply part_tells in Eq.
      apply program_interprets; [easy | arith'].
    + intros S [L Eq]. unfold fits_in, same_part. f_equal. apply part_tells in Eq.
      unfold embed, same_part. cbn [image nested].
      pose proof (phi_length (4 * j + w) S) as P. unfold phi in P. rewrite P. arith'.
Qed.

(** Seen at work: the guest of [PaperMachine.v] under three control programs.  Of its five steps one runs
    directly and four trap, each through three levels: 1 + 4 * 2^3 steps of the machine below. *)
Example three_levels :
  run machine 33 (nest machine (fun j => phi (4 * j + 10)) 3 guest_program) =
  nest machine (fun j => phi (4 * j + 10)) 3 (run machine 5 guest_program).
Proof. vm_compute. reflexivity. Qed.
